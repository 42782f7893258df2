//! Features: what they are now, by default, and what may change (NVMe Base 2.0, 5.15, 5.27).
//!
//! All values are plain words, so that they can be kept in the durable state. Nothing is saved
//! over a reset, and Get Features says so.

use crate::spec::Status;
use crate::spec::features::{
    FeatureCapabilities, InterruptCoalescing, InterruptVectorConfig, NumberOfQueues,
    PowerManagement, TemperatureThreshold, fid,
};

/// Words that [`Features::to_words`] needs.
pub const FEATURE_WORDS: usize = 24 + VECTORS_MAX;
/// Most vectors whose configuration is kept.
const VECTORS_MAX: usize = 128;
/// Composite temperature above which the host could be warned, in Kelvin.
pub const WARNING_TEMPERATURE: u16 = 343;

/// What a Get or Set Features command is judged against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeatureLimits {
    /// I/O queue pairs of this controller.
    pub queues: u16,
    /// Interrupt vectors of this controller.
    pub vectors: u16,
    /// Whether some namespace has a volatile write cache.
    pub write_cache: bool,
}

/// Current values of the features of one controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    limits: FeatureLimits,
    arbitration: u32,
    error_recovery: u32,
    temperature_over: u16,
    temperature_under: u16,
    write_cache: bool,
    coalescing: InterruptCoalescing,
    uncoalesced: Vec<bool>,
    write_atomicity: u32,
    async_events: u32,
    keep_alive_ms: u32,
    host_identifier: [u8; 16],
    /// The host's timestamp and the time it was set at, in ms; whether the host set it.
    timestamp: (u64, u64, bool),
}

/// Which value Get Features asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Select {
    Current,
    Default,
    Supported,
}

/// What Get Features answers: completion dword 0, and data for some features.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeatureValue {
    /// Completion dword 0.
    pub dword0: u32,
    /// What goes into the data buffer; empty for most features.
    pub data: Vec<u8>,
}

impl FeatureValue {
    fn of(dword0: u32) -> FeatureValue {
        FeatureValue {
            dword0,
            data: Vec::new(),
        }
    }
}

impl Features {
    /// The defaults, as after a reset.
    pub fn new(limits: FeatureLimits) -> Features {
        Features {
            limits,
            arbitration: 0,
            error_recovery: 0,
            temperature_over: WARNING_TEMPERATURE,
            temperature_under: 0,
            write_cache: limits.write_cache,
            coalescing: InterruptCoalescing::new(),
            uncoalesced: vec![false; usize::from(limits.vectors)],
            write_atomicity: 0,
            async_events: 0,
            keep_alive_ms: 0,
            host_identifier: [0; 16],
            timestamp: (0, 0, false),
        }
    }

    /// Whether the volatile write cache is on.
    pub fn write_cache(&self) -> bool {
        self.write_cache
    }

    /// Interrupt coalescing as set.
    pub fn coalescing(&self) -> InterruptCoalescing {
        self.coalescing
    }

    /// Vectors that do not coalesce.
    pub fn uncoalesced(&self) -> &[bool] {
        &self.uncoalesced
    }

    /// Keep alive timeout; 0 = off.
    pub fn keep_alive_ms(&self) -> u32 {
        self.keep_alive_ms
    }

    /// How many bytes of data Set Features takes for this feature.
    pub fn data_bytes(fid: u8, value: u32) -> usize {
        match fid {
            fid::TIMESTAMP => 8,
            fid::HOST_IDENTIFIER if value & 1 != 0 => 16,
            fid::HOST_IDENTIFIER => 8,
            _ => 0,
        }
    }

    /// Get Features at `now_ns`.
    ///
    /// # Errors
    /// Invalid Field in Command for a feature or selection that does not exist.
    pub fn get(
        &self,
        fid: u8,
        select: u8,
        value: u32,
        now_ns: u64,
    ) -> Result<FeatureValue, Status> {
        let select = match select {
            0 => Select::Current,
            // Nothing is saved, so the saved value is the default (5.15.1).
            1 | 2 => Select::Default,
            3 => Select::Supported,
            _ => return Err(Status::INVALID_FIELD),
        };
        match select {
            Select::Current => self.current(fid, value, now_ns),
            Select::Default => Features::new(self.limits).current(fid, value, now_ns),
            Select::Supported => {
                self.current(fid, value, now_ns)?;
                let changeable = fid != fid::COMMAND_SET_PROFILE;
                let capabilities = FeatureCapabilities::new().with_changeable(changeable);
                Ok(FeatureValue::of(capabilities.into()))
            }
        }
    }

    fn current(&self, fid: u8, value: u32, now_ns: u64) -> Result<FeatureValue, Status> {
        let dword0 = match fid {
            fid::ARBITRATION => self.arbitration,
            fid::POWER_MANAGEMENT => 0,
            fid::TEMPERATURE_THRESHOLD => self.temperature(value.into())?.into(),
            fid::ERROR_RECOVERY => self.error_recovery,
            fid::VOLATILE_WRITE_CACHE if self.limits.write_cache => u32::from(self.write_cache),
            fid::NUMBER_OF_QUEUES => self.granted_queues(),
            fid::INTERRUPT_COALESCING => self.coalescing.into(),
            fid::INTERRUPT_VECTOR => self.vector(value.into())?.into(),
            fid::WRITE_ATOMICITY => self.write_atomicity,
            fid::ASYNC_EVENTS => self.async_events,
            fid::KEEP_ALIVE => self.keep_alive_ms,
            fid::COMMAND_SET_PROFILE => 0,
            fid::TIMESTAMP => {
                return Ok(FeatureValue {
                    dword0: 0,
                    data: self.timestamp(now_ns).to_vec(),
                });
            }
            fid::HOST_IDENTIFIER => {
                let bytes = Features::data_bytes(fid, value);
                let data = self.host_identifier[..bytes].to_vec();
                return Ok(FeatureValue { dword0: 0, data });
            }
            _ => return Err(Status::INVALID_FIELD),
        };
        Ok(FeatureValue::of(dword0))
    }

    fn granted_queues(&self) -> u32 {
        let queues_z = self.limits.queues - 1;
        NumberOfQueues::new()
            .with_sqs_z(queues_z)
            .with_cqs_z(queues_z)
            .into()
    }

    fn temperature(&self, ask: TemperatureThreshold) -> Result<u16, Status> {
        match (ask.sensor(), ask.kind()) {
            (0, 0) => Ok(self.temperature_over),
            (0, 1) => Ok(self.temperature_under),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn vector(&self, ask: InterruptVectorConfig) -> Result<InterruptVectorConfig, Status> {
        let disabled = self.uncoalesced.get(usize::from(ask.vector()));
        let disabled = *disabled.ok_or(Status::INVALID_FIELD)?;
        // The admin queue never coalesces (5.27.1.6).
        Ok(InterruptVectorConfig::new()
            .with_vector(ask.vector())
            .with_disabled(disabled))
    }

    /// Timestamp data (5.27.1.10): 48 bits of milliseconds, and where they come from.
    fn timestamp(&self, now_ns: u64) -> [u8; 8] {
        const FROM_HOST: u64 = 1 << 1;
        let (base_ms, set_at_ms, from_host) = self.timestamp;
        let ms = base_ms.wrapping_add((now_ns / 1_000_000).wrapping_sub(set_at_ms));
        let attributes = if from_host { FROM_HOST } else { 0 };
        (ms & 0xffff_ffff_ffff | attributes << 48).to_le_bytes()
    }

    /// Set Features: completion dword 0. `data` holds [`Features::data_bytes`] bytes;
    /// `queues_exist` tells whether any I/O queue does.
    ///
    /// # Errors
    /// Feature Identifier Not Saveable, Feature Not Changeable, Command Sequence Error, or Invalid
    /// Field in Command; nothing has changed then.
    pub fn set(
        &mut self,
        ask: SetFeature<'_>,
        queues_exist: bool,
        now_ns: u64,
    ) -> Result<u32, Status> {
        let SetFeature {
            fid,
            save,
            value,
            data,
        } = ask;
        self.current(fid, value, now_ns)?;
        if save {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        match fid {
            fid::ARBITRATION => self.arbitration = value,
            fid::POWER_MANAGEMENT if PowerManagement::from(value).state() != 0 => {
                return Err(Status::INVALID_FIELD);
            }
            fid::TEMPERATURE_THRESHOLD => self.set_temperature(value.into()),
            // Neither deallocated-block errors nor limited retries: only the value is kept.
            fid::ERROR_RECOVERY if value >> 16 != 0 => return Err(Status::INVALID_FIELD),
            fid::ERROR_RECOVERY => self.error_recovery = value,
            fid::VOLATILE_WRITE_CACHE => self.write_cache = value & 1 != 0,
            fid::NUMBER_OF_QUEUES => return self.set_queues(value.into(), queues_exist),
            fid::INTERRUPT_COALESCING => self.coalescing = (value & 0xffff).into(),
            fid::INTERRUPT_VECTOR => self.set_vector(value.into()),
            fid::WRITE_ATOMICITY => self.write_atomicity = value & 1,
            fid::ASYNC_EVENTS => self.async_events = value & ASYNC_EVENTS_SUPPORTED,
            fid::KEEP_ALIVE => self.keep_alive_ms = keep_alive_ms(value),
            fid::COMMAND_SET_PROFILE if value & 0x1ff != 0 => {
                return Err(Status::IO_COMMAND_SET_COMBINATION_REJECTED);
            }
            fid::TIMESTAMP => self.set_timestamp(data, now_ns),
            fid::HOST_IDENTIFIER => {
                let length = data.len().min(16);
                self.host_identifier = [0; 16];
                self.host_identifier[..length].copy_from_slice(&data[..length]);
            }
            _ => {}
        }
        Ok(if fid == fid::KEEP_ALIVE {
            self.keep_alive_ms
        } else {
            0
        })
    }

    fn set_temperature(&mut self, ask: TemperatureThreshold) {
        match ask.kind() {
            0 => self.temperature_over = ask.threshold(),
            _ => self.temperature_under = ask.threshold(),
        }
    }

    /// 5.27.1.5: how many are granted does not depend on how many are asked for.
    fn set_queues(&self, ask: NumberOfQueues, queues_exist: bool) -> Result<u32, Status> {
        if ask.sqs_z() == u16::MAX || ask.cqs_z() == u16::MAX {
            return Err(Status::INVALID_FIELD);
        }
        if queues_exist {
            return Err(Status::COMMAND_SEQUENCE_ERROR);
        }
        Ok(self.granted_queues())
    }

    fn set_vector(&mut self, ask: InterruptVectorConfig) {
        if let Some(disabled) = self.uncoalesced.get_mut(usize::from(ask.vector())) {
            *disabled = ask.disabled();
        }
    }

    fn set_timestamp(&mut self, data: &[u8], now_ns: u64) {
        let bytes = data.iter().take(6).rev();
        let ms = bytes.fold(0, |value, &byte| value << 8 | u64::from(byte));
        self.timestamp = (ms, now_ns / 1_000_000, true);
    }

    /// The values as plain words.
    pub fn to_words(&self) -> [u32; FEATURE_WORDS] {
        let mut words = [0; FEATURE_WORDS];
        let low_high = |value: u64| [value as u32, (value >> 32) as u32];
        let scalars = [
            self.arbitration,
            self.error_recovery,
            self.temperature_over.into(),
            self.temperature_under.into(),
            u32::from(self.write_cache),
            self.coalescing.into(),
            self.write_atomicity,
            self.async_events,
            self.keep_alive_ms,
            low_high(self.timestamp.0)[0],
            low_high(self.timestamp.0)[1],
            low_high(self.timestamp.1)[0],
            low_high(self.timestamp.1)[1],
            u32::from(self.timestamp.2),
        ];
        words[..scalars.len()].copy_from_slice(&scalars);
        for (word, bytes) in words[16..20]
            .iter_mut()
            .zip(self.host_identifier.chunks_exact(4))
        {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for (word, &disabled) in words[24..].iter_mut().zip(&self.uncoalesced) {
            *word = u32::from(disabled);
        }
        words
    }

    /// Values that [`Features::to_words`] wrote; what is out of range takes its default.
    pub fn from_words(limits: FeatureLimits, words: &[u32; FEATURE_WORDS]) -> Features {
        let mut features = Features::new(limits);
        let long = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        features.arbitration = words[0];
        features.error_recovery = words[1] & 0xffff;
        features.temperature_over = words[2] as u16;
        features.temperature_under = words[3] as u16;
        features.write_cache = limits.write_cache && words[4] != 0;
        features.coalescing = (words[5] & 0xffff).into();
        features.write_atomicity = words[6] & 1;
        features.async_events = words[7] & ASYNC_EVENTS_SUPPORTED;
        features.keep_alive_ms = keep_alive_ms(words[8]);
        features.timestamp = (long(9), long(11), words[13] != 0);
        for (bytes, word) in features
            .host_identifier
            .chunks_exact_mut(4)
            .zip(&words[16..20])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        for (disabled, &word) in features.uncoalesced.iter_mut().zip(&words[24..]) {
            *disabled = word != 0;
        }
        features
    }
}

/// A Set Features command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetFeature<'a> {
    /// Feature Identifier.
    pub fid: u8,
    /// Save.
    pub save: bool,
    /// Command dword 11.
    pub value: u32,
    /// The data buffer.
    pub data: &'a [u8],
}

/// SMART warnings; namespaces never change while a host looks, so there are no notices.
const ASYNC_EVENTS_SUPPORTED: u32 = 0xff;
/// KAS: granularity of the keep alive timer in units of 100 ms.
pub const KEEP_ALIVE_GRANULARITY_100MS: u16 = 10;

/// Rounded up to the granularity.
fn keep_alive_ms(value: u32) -> u32 {
    let granularity = u32::from(KEEP_ALIVE_GRANULARITY_100MS) * 100;
    value
        .checked_next_multiple_of(granularity)
        .unwrap_or(u32::MAX - u32::MAX % granularity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FeatureLimits = FeatureLimits {
        queues: 8,
        vectors: 4,
        write_cache: true,
    };

    fn set(features: &mut Features, fid: u8, value: u32) -> Result<u32, Status> {
        features.set(
            SetFeature {
                fid,
                save: false,
                value,
                data: &[],
            },
            false,
            0,
        )
    }

    fn get(features: &Features, fid: u8, select: u8, value: u32) -> Result<u32, Status> {
        features
            .get(fid, select, value, 0)
            .map(|value| value.dword0)
    }

    #[test]
    fn what_is_set_is_current_and_the_default_stays() {
        let mut features = Features::new(LIMITS);
        let cases = [
            (fid::ARBITRATION, 7, 7, 0),
            (fid::VOLATILE_WRITE_CACHE, 0, 0, 1),
            (fid::INTERRUPT_COALESCING, 0x0203, 0x0203, 0),
            (fid::WRITE_ATOMICITY, 1, 1, 0),
            (fid::ASYNC_EVENTS, 0x3ff, 0xff, 0),
            (fid::KEEP_ALIVE, 1500, 2000, 0),
            (fid::ERROR_RECOVERY, 5, 5, 0),
        ];
        for (fid, value, current, default) in cases {
            set(&mut features, fid, value).unwrap();
            assert_eq!(get(&features, fid, 0, 0), Ok(current), "{fid:#x}");
            assert_eq!(get(&features, fid, 1, 0), Ok(default), "{fid:#x} default");
            assert_eq!(
                get(&features, fid, 3, 0),
                Ok(4),
                "{fid:#x} is changeable, not saveable"
            );
        }
        assert_eq!(Features::from_words(LIMITS, &features.to_words()), features);
    }

    #[test]
    fn unknown_features_are_invalid_fields() {
        let mut features = Features::new(LIMITS);
        for fid in [0x00, 0x03, 0x0c, 0x0d, 0x10, 0x80, 0xd0] {
            assert_eq!(
                get(&features, fid, 0, 0),
                Err(Status::INVALID_FIELD),
                "{fid:#x}"
            );
            assert_eq!(
                set(&mut features, fid, 0),
                Err(Status::INVALID_FIELD),
                "{fid:#x}"
            );
        }
        assert_eq!(
            get(&features, fid::ARBITRATION, 4, 0),
            Err(Status::INVALID_FIELD)
        );
    }

    #[test]
    fn a_write_cache_that_is_not_there_has_no_feature() {
        let features = Features::new(FeatureLimits {
            write_cache: false,
            ..LIMITS
        });
        let cache = get(&features, fid::VOLATILE_WRITE_CACHE, 0, 0);
        assert_eq!(cache, Err(Status::INVALID_FIELD));
    }

    #[test]
    fn saving_is_refused_and_changes_nothing() {
        let mut features = Features::new(LIMITS);
        let ask = SetFeature {
            fid: fid::ARBITRATION,
            save: true,
            value: 7,
            data: &[],
        };
        assert_eq!(
            features.set(ask, false, 0),
            Err(Status::FEATURE_NOT_SAVEABLE)
        );
        assert_eq!(get(&features, fid::ARBITRATION, 0, 0), Ok(0));
    }

    #[test]
    fn queues_are_granted_once_and_not_in_retrospect() {
        let mut features = Features::new(LIMITS);
        assert_eq!(
            set(&mut features, fid::NUMBER_OF_QUEUES, 0),
            Ok(0x0007_0007)
        );
        let invalid = set(&mut features, fid::NUMBER_OF_QUEUES, 0xffff);
        assert_eq!(invalid, Err(Status::INVALID_FIELD));
        let ask = SetFeature {
            fid: fid::NUMBER_OF_QUEUES,
            save: false,
            value: 0,
            data: &[],
        };
        assert_eq!(
            features.set(ask, true, 0),
            Err(Status::COMMAND_SEQUENCE_ERROR)
        );
    }

    #[test]
    fn vectors_are_configured_one_by_one() {
        let mut features = Features::new(LIMITS);
        set(&mut features, fid::INTERRUPT_VECTOR, 0x1_0002).unwrap();
        assert_eq!(get(&features, fid::INTERRUPT_VECTOR, 0, 2), Ok(0x1_0002));
        assert_eq!(get(&features, fid::INTERRUPT_VECTOR, 0, 1), Ok(1));
        let past = set(&mut features, fid::INTERRUPT_VECTOR, 4);
        assert_eq!(past, Err(Status::INVALID_FIELD));
    }

    #[test]
    fn the_timestamp_runs_on_from_what_the_host_set() {
        let mut features = Features::new(LIMITS);
        let fresh = features.get(fid::TIMESTAMP, 0, 0, 5_000_000).unwrap();
        assert_eq!(fresh.data, [5, 0, 0, 0, 0, 0, 0, 0]);
        let data = [0, 1, 0, 0, 0, 0, 0xff, 0xff];
        let ask = SetFeature {
            fid: fid::TIMESTAMP,
            save: false,
            value: 0,
            data: &data,
        };
        features.set(ask, false, 5_000_000).unwrap();
        let later = features.get(fid::TIMESTAMP, 0, 0, 8_000_000).unwrap();
        assert_eq!(later.data, [3, 1, 0, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn the_host_identifier_reads_back() {
        let mut features = Features::new(LIMITS);
        let data = [7; 16];
        let ask = SetFeature {
            fid: fid::HOST_IDENTIFIER,
            save: false,
            value: 1,
            data: &data,
        };
        features.set(ask, false, 0).unwrap();
        assert_eq!(
            features.get(fid::HOST_IDENTIFIER, 0, 1, 0).unwrap().data,
            [7; 16]
        );
        assert_eq!(Features::from_words(LIMITS, &features.to_words()), features);
    }
}
