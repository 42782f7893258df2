//! Features: what they are now, by default, and what may change (NVMe Base 2.0, 5.15, 5.27).
//!
//! All values are plain words, so that they can be kept in the durable state. Nothing is saved
//! over a reset, and Get Features says so.

mod words;

pub use words::FEATURE_WORDS;

use crate::spec::features::{
    AsyncEventConfig, CommandSetProfile, ErrorRecovery, FeatureCapabilities, HostIdentifier,
    InterruptCoalescing, InterruptVectorConfig, NumberOfQueues, PowerManagement, Select,
    TemperatureThreshold, Timestamp, WriteAtomicity, WriteCache, fid,
};
use crate::spec::log_page::CriticalWarning;
use crate::spec::{Nsid, Status};

/// Composite temperature in kelvin. There is no sensor; a temperature at which nobody worries.
pub const TEMPERATURE: u16 = 310;
/// Composite temperature above which the host is warned by default (WCTEMP), in kelvin.
pub const WARNING_TEMPERATURE: u16 = 343;
/// KAS: granularity of the keep alive timer in units of 100 ms.
pub const KEEP_ALIVE_GRANULARITY_100MS: u16 = 10;

/// What a Get or Set Features command is judged against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeatureLimits {
    /// I/O queue pairs of this controller.
    pub queues: u16,
    /// Interrupt vectors of this controller.
    pub vectors: u16,
    /// The highest namespace identifier.
    pub namespaces: u32,
    /// Whether some namespace has a volatile write cache.
    pub write_cache: bool,
}

/// Current values of the features of one controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    limits: FeatureLimits,
    arbitration: u32,
    error_recovery: u16,
    temperature_over: u16,
    temperature_under: u16,
    write_cache: bool,
    coalescing: InterruptCoalescing,
    uncoalesced: Vec<bool>,
    write_atomicity: bool,
    async_events: AsyncEventConfig,
    keep_alive_ms: u32,
    host_identifier: [u8; 16],
    clock: Clock,
}

/// The host's clock: it showed `base_ms` when ours showed `since_ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Clock {
    base_ms: u64,
    since_ms: u64,
    from_host: bool,
}

impl Clock {
    fn at(self, now_ns: u64) -> Timestamp {
        const MS: u64 = (1 << 48) - 1;
        let elapsed = (now_ns / 1_000_000).saturating_sub(self.since_ms);
        let origin = match self.from_host {
            true => Timestamp::ORIGIN_HOST,
            false => Timestamp::ORIGIN_RESET,
        };
        Timestamp::new()
            .with_ms(self.base_ms.wrapping_add(elapsed) & MS)
            .with_origin(origin)
    }
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
    fn of(dword0: impl Into<u32>) -> FeatureValue {
        FeatureValue {
            dword0: dword0.into(),
            data: Vec::new(),
        }
    }

    fn data(bytes: &[u8]) -> FeatureValue {
        FeatureValue {
            dword0: 0,
            data: bytes.to_vec(),
        }
    }
}

/// A Set Features command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetFeature<'a> {
    /// Feature Identifier.
    pub fid: u8,
    /// Namespace Identifier.
    pub nsid: Nsid,
    /// Save.
    pub save: bool,
    /// Command dword 11.
    pub value: u32,
    /// The data buffer.
    pub data: &'a [u8],
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
            write_atomicity: false,
            async_events: AsyncEventConfig::new(),
            keep_alive_ms: 0,
            host_identifier: [0; 16],
            clock: Clock::default(),
        }
    }

    /// The host's clock starts at 0, as it does with a reset.
    pub fn start_clock(&mut self, now_ns: u64) {
        self.clock = Clock {
            since_ms: now_ns / 1_000_000,
            ..Clock::default()
        };
    }

    /// Whether the controller has this feature.
    pub fn supports(&self, fid: u8) -> bool {
        match fid {
            fid::ARBITRATION
            | fid::POWER_MANAGEMENT
            | fid::TEMPERATURE_THRESHOLD
            | fid::ERROR_RECOVERY
            | fid::NUMBER_OF_QUEUES
            | fid::INTERRUPT_COALESCING
            | fid::INTERRUPT_VECTOR
            | fid::WRITE_ATOMICITY
            | fid::ASYNC_EVENTS
            | fid::TIMESTAMP
            | fid::KEEP_ALIVE
            | fid::COMMAND_SET_PROFILE
            | fid::HOST_IDENTIFIER => true,
            fid::VOLATILE_WRITE_CACHE => self.limits.write_cache,
            _ => false,
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

    /// What is to be worried about: a temperature that has reached a threshold of the host.
    pub fn critical_warning(&self) -> CriticalWarning {
        let temperature =
            TEMPERATURE >= self.temperature_over || TEMPERATURE <= self.temperature_under;
        CriticalWarning::new().with_temperature(temperature)
    }

    /// Whether the host wants to hear of a temperature that has reached a threshold, and it has.
    pub fn reports_temperature(&self) -> bool {
        CriticalWarning::from(self.async_events.smart()).temperature()
            && self.critical_warning().temperature()
    }

    /// How many bytes of data Set Features takes for this feature.
    pub fn data_bytes(fid: u8, value: u32) -> usize {
        match fid {
            fid::TIMESTAMP => 8,
            fid::HOST_IDENTIFIER if HostIdentifier::from(value).extended() => 16,
            fid::HOST_IDENTIFIER => 8,
            _ => 0,
        }
    }

    /// Get Features at `now_ns`. `value` is command dword 11.
    ///
    /// # Errors
    /// Invalid Field in Command for a feature or selection that does not exist.
    pub fn get(
        &self,
        fid: u8,
        select: Select,
        value: u32,
        now_ns: u64,
    ) -> Result<FeatureValue, Status> {
        if !self.supports(fid) {
            return Err(Status::INVALID_FIELD);
        }
        match select {
            Select::CURRENT => self.current(fid, value, now_ns),
            // Nothing is saved, so the saved value is the default (5.15.1).
            Select::DEFAULT | Select::SAVED => {
                let mut default = Features::new(self.limits);
                default.start_clock(now_ns);
                default.current(fid, value, now_ns)
            }
            Select::CAPABILITIES => {
                let capabilities = FeatureCapabilities::new().with_changeable(true);
                Ok(FeatureValue::of(capabilities))
            }
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn current(&self, fid: u8, value: u32, now_ns: u64) -> Result<FeatureValue, Status> {
        Ok(match fid {
            fid::ARBITRATION => FeatureValue::of(self.arbitration),
            fid::TEMPERATURE_THRESHOLD => FeatureValue::of(self.temperature(value.into())?),
            fid::ERROR_RECOVERY => {
                FeatureValue::of(ErrorRecovery::new().with_tler(self.error_recovery))
            }
            fid::VOLATILE_WRITE_CACHE => {
                FeatureValue::of(WriteCache::new().with_enable(self.write_cache))
            }
            fid::NUMBER_OF_QUEUES => FeatureValue::of(self.granted_queues()),
            fid::INTERRUPT_COALESCING => FeatureValue::of(self.coalescing),
            fid::INTERRUPT_VECTOR => FeatureValue::of(self.vector(value.into())?),
            fid::WRITE_ATOMICITY => {
                FeatureValue::of(WriteAtomicity::new().with_disable(self.write_atomicity))
            }
            fid::ASYNC_EVENTS => FeatureValue::of(self.async_events),
            fid::KEEP_ALIVE => FeatureValue::of(self.keep_alive_ms),
            fid::TIMESTAMP => FeatureValue::data(&u64::from(self.clock.at(now_ns)).to_le_bytes()),
            fid::HOST_IDENTIFIER => {
                let bytes = Features::data_bytes(fid, value);
                FeatureValue::data(&self.host_identifier[..bytes])
            }
            // One power state and one command set profile, both number 0.
            _ => FeatureValue::of(0u32),
        })
    }

    fn granted_queues(&self) -> NumberOfQueues {
        let queues_z = self.limits.queues.saturating_sub(1);
        NumberOfQueues::new()
            .with_sqs_z(queues_z)
            .with_cqs_z(queues_z)
    }

    /// There are no sensors, only the composite temperature.
    fn temperature(&self, ask: TemperatureThreshold) -> Result<TemperatureThreshold, Status> {
        let threshold = match (ask.sensor(), ask.kind()) {
            (TemperatureThreshold::COMPOSITE, TemperatureThreshold::OVER) => self.temperature_over,
            (TemperatureThreshold::COMPOSITE, TemperatureThreshold::UNDER) => {
                self.temperature_under
            }
            _ => return Err(Status::INVALID_FIELD),
        };
        Ok(TemperatureThreshold::new().with_threshold(threshold))
    }

    fn vector(&self, ask: InterruptVectorConfig) -> Result<InterruptVectorConfig, Status> {
        let disabled = self.uncoalesced.get(usize::from(ask.vector()));
        let disabled = *disabled.ok_or(Status::INVALID_FIELD)?;
        Ok(InterruptVectorConfig::new()
            .with_vector(ask.vector())
            .with_disabled(disabled))
    }

    /// Set Features: completion dword 0. The data of `ask` is [`Features::data_bytes`] long;
    /// `queues_exist` tells whether any I/O queue does.
    ///
    /// # Errors
    /// Feature Identifier Not Saveable, Feature Not Namespace Specific, Invalid Namespace or
    /// Format, Command Sequence Error, I/O Command Set Combination Rejected, or Invalid Field in
    /// Command; nothing has changed then.
    pub fn set(
        &mut self,
        ask: SetFeature<'_>,
        queues_exist: bool,
        now_ns: u64,
    ) -> Result<u32, Status> {
        self.check(&ask)?;
        let value = ask.value;
        match ask.fid {
            fid::ARBITRATION => self.arbitration = value,
            fid::POWER_MANAGEMENT => {
                valid(PowerManagement::from(value).state() == 0)?;
            }
            fid::TEMPERATURE_THRESHOLD => self.set_temperature(value.into())?,
            fid::ERROR_RECOVERY => self.set_error_recovery(value.into())?,
            fid::VOLATILE_WRITE_CACHE => self.write_cache = WriteCache::from(value).enable(),
            fid::NUMBER_OF_QUEUES => return self.set_queues(value.into(), queues_exist),
            fid::INTERRUPT_COALESCING => self.coalescing = coalescing(value.into()),
            fid::INTERRUPT_VECTOR => self.set_vector(value.into())?,
            fid::WRITE_ATOMICITY => {
                self.write_atomicity = WriteAtomicity::from(value).disable();
            }
            fid::ASYNC_EVENTS => self.async_events = supported_events(value.into()),
            fid::KEEP_ALIVE => self.keep_alive_ms = keep_alive_ms(value),
            fid::COMMAND_SET_PROFILE if CommandSetProfile::from(value).index() != 0 => {
                return Err(Status::IO_COMMAND_SET_COMBINATION_REJECTED);
            }
            fid::TIMESTAMP => self.set_clock(ask.data, now_ns),
            fid::HOST_IDENTIFIER => self.set_host_identifier(ask.data),
            _ => {}
        }
        Ok(0)
    }

    /// What is checked for every feature: none can be saved, none is of one namespace.
    fn check(&self, ask: &SetFeature<'_>) -> Result<(), Status> {
        valid(self.supports(ask.fid))?;
        if ask.save {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        match ask.nsid {
            Nsid::NONE | Nsid::ALL => Ok(()),
            Nsid(nsid) if nsid > self.limits.namespaces => Err(Status::INVALID_NAMESPACE),
            _ => Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC),
        }
    }

    fn set_temperature(&mut self, ask: TemperatureThreshold) -> Result<(), Status> {
        // All temperatures there are: the composite one.
        let ask = match ask.sensor() {
            TemperatureThreshold::ALL => ask.with_sensor(TemperatureThreshold::COMPOSITE),
            _ => ask,
        };
        self.temperature(ask)?;
        match ask.kind() {
            TemperatureThreshold::OVER => self.temperature_over = ask.threshold(),
            _ => self.temperature_under = ask.threshold(),
        }
        Ok(())
    }

    /// Nothing here is tried twice, so the limit is only kept; there is no error for deallocated
    /// blocks (NSFEAT).
    fn set_error_recovery(&mut self, ask: ErrorRecovery) -> Result<(), Status> {
        valid(!ask.dulbe())?;
        self.error_recovery = ask.tler();
        Ok(())
    }

    /// 5.27.1.5: how many are granted does not depend on how many are asked for.
    fn set_queues(&self, ask: NumberOfQueues, queues_exist: bool) -> Result<u32, Status> {
        valid(ask.sqs_z() != u16::MAX && ask.cqs_z() != u16::MAX)?;
        if queues_exist {
            return Err(Status::COMMAND_SEQUENCE_ERROR);
        }
        Ok(self.granted_queues().into())
    }

    fn set_vector(&mut self, ask: InterruptVectorConfig) -> Result<(), Status> {
        let disabled = self.uncoalesced.get_mut(usize::from(ask.vector()));
        *disabled.ok_or(Status::INVALID_FIELD)? = ask.disabled();
        Ok(())
    }

    fn set_clock(&mut self, data: &[u8], now_ns: u64) {
        let bytes = std::array::from_fn(|at| data.get(at).copied().unwrap_or(0));
        self.clock = Clock {
            base_ms: Timestamp::from(u64::from_le_bytes(bytes)).ms(),
            since_ms: now_ns / 1_000_000,
            from_host: true,
        };
    }

    fn set_host_identifier(&mut self, data: &[u8]) {
        self.host_identifier = [0; 16];
        for (kept, byte) in self.host_identifier.iter_mut().zip(data) {
            *kept = *byte;
        }
    }
}

fn valid(field: bool) -> Result<(), Status> {
    if field {
        Ok(())
    } else {
        Err(Status::INVALID_FIELD)
    }
}

/// The same without reserved bits.
fn coalescing(asked: InterruptCoalescing) -> InterruptCoalescing {
    InterruptCoalescing::new()
        .with_threshold_z(asked.threshold_z())
        .with_time_100us(asked.time_100us())
}

/// SMART warnings; namespaces and firmware never change while a host looks, so there are no
/// notices (OAES).
fn supported_events(asked: AsyncEventConfig) -> AsyncEventConfig {
    AsyncEventConfig::new().with_smart(asked.smart())
}

/// Rounded up to the granularity.
fn keep_alive_ms(value: u32) -> u32 {
    let granularity = u32::from(KEEP_ALIVE_GRANULARITY_100MS) * 100;
    value
        .checked_next_multiple_of(granularity)
        .unwrap_or(u32::MAX - u32::MAX % granularity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: FeatureLimits = FeatureLimits {
        queues: 8,
        vectors: 4,
        namespaces: 3,
        write_cache: true,
    };

    fn ask(fid: u8, value: u32, data: &[u8]) -> SetFeature<'_> {
        SetFeature {
            fid,
            nsid: Nsid::NONE,
            save: false,
            value,
            data,
        }
    }

    fn set(features: &mut Features, fid: u8, value: u32) -> Result<u32, Status> {
        features.set(ask(fid, value, &[]), false, 0)
    }

    fn get(features: &Features, fid: u8, select: u8, value: u32) -> Result<u32, Status> {
        features
            .get(fid, Select(select), value, 0)
            .map(|value| value.dword0)
    }

    #[test]
    fn what_is_set_is_current_and_the_default_stays() {
        let mut features = Features::new(LIMITS);
        // Feature, value set, current afterwards, default.
        let cases = [
            (fid::ARBITRATION, 0x0102_0307, 0x0102_0307, 0),
            (fid::POWER_MANAGEMENT, 0x40, 0, 0),
            (fid::TEMPERATURE_THRESHOLD, 350, 350, 343),
            (fid::ERROR_RECOVERY, 5, 5, 0),
            (fid::VOLATILE_WRITE_CACHE, 0, 0, 1),
            (fid::NUMBER_OF_QUEUES, 0, 0x0007_0007, 0x0007_0007),
            (fid::INTERRUPT_COALESCING, 0xffff_0203, 0x0203, 0),
            (fid::WRITE_ATOMICITY, 3, 1, 0),
            (fid::ASYNC_EVENTS, 0xffff_ffff, 0xff, 0),
            (fid::KEEP_ALIVE, 1500, 2000, 0),
            (fid::COMMAND_SET_PROFILE, 0, 0, 0),
        ];
        for (fid, value, current, default) in cases {
            set(&mut features, fid, value).unwrap();
            assert_eq!(get(&features, fid, 0, 0), Ok(current), "{fid:#x}");
            assert_eq!(get(&features, fid, 1, 0), Ok(default), "{fid:#x} default");
            assert_eq!(get(&features, fid, 2, 0), Ok(default), "{fid:#x} saved");
            assert_eq!(
                get(&features, fid, 3, 0),
                Ok(4),
                "{fid:#x} is changeable, not saveable"
            );
            assert_eq!(get(&features, fid, 4, 0), Err(Status::INVALID_FIELD));
        }
        assert_eq!(Features::from_words(LIMITS, &features.to_words()), features);
    }

    #[test]
    fn unknown_features_are_invalid_fields() {
        let mut features = Features::new(LIMITS);
        for fid in (0..=0xff)
            .filter(|&fid| !features.supports(fid))
            .collect::<Vec<_>>()
        {
            let invalid = Err(Status::INVALID_FIELD);
            for select in 0..8 {
                assert_eq!(get(&features, fid, select, 0), invalid, "{fid:#x}");
            }
            assert_eq!(set(&mut features, fid, 0), invalid, "{fid:#x}");
        }
        // Windows asks for these two and wants a clean refusal.
        assert!(!features.supports(0x0c) && !features.supports(0xd0));
        assert_eq!((0..=0xff).filter(|&fid| features.supports(fid)).count(), 14);
    }

    #[test]
    fn a_write_cache_that_is_not_there_has_no_feature() {
        let limits = FeatureLimits {
            write_cache: false,
            ..LIMITS
        };
        let mut features = Features::new(limits);
        let fid = fid::VOLATILE_WRITE_CACHE;
        assert_eq!(get(&features, fid, 0, 0), Err(Status::INVALID_FIELD));
        assert_eq!(set(&mut features, fid, 1), Err(Status::INVALID_FIELD));
        assert!(!features.write_cache());
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut features = Features::new(LIMITS);
        let fresh = features.clone();
        let save = SetFeature {
            save: true,
            ..ask(fid::ARBITRATION, 7, &[])
        };
        let of_namespace = |nsid| SetFeature {
            nsid: Nsid(nsid),
            ..ask(fid::ARBITRATION, 7, &[])
        };
        let cases = [
            (save, Status::FEATURE_NOT_SAVEABLE),
            (of_namespace(3), Status::FEATURE_NOT_NAMESPACE_SPECIFIC),
            (of_namespace(4), Status::INVALID_NAMESPACE),
            (ask(fid::POWER_MANAGEMENT, 1, &[]), Status::INVALID_FIELD),
            (
                ask(fid::ERROR_RECOVERY, 0x1_0001, &[]),
                Status::INVALID_FIELD,
            ),
            (
                ask(fid::INTERRUPT_VECTOR, 0x1_0004, &[]),
                Status::INVALID_FIELD,
            ),
            (
                ask(fid::TEMPERATURE_THRESHOLD, 0x1_0001, &[]),
                Status::INVALID_FIELD,
            ),
            (
                ask(fid::TEMPERATURE_THRESHOLD, 0x20_0001, &[]),
                Status::INVALID_FIELD,
            ),
            (
                ask(fid::COMMAND_SET_PROFILE, 1, &[]),
                Status::IO_COMMAND_SET_COMBINATION_REJECTED,
            ),
        ];
        for (ask, status) in cases {
            assert_eq!(features.set(ask, false, 0), Err(status), "{ask:?}");
            assert_eq!(features, fresh, "{ask:?}");
        }
        let all = SetFeature {
            nsid: Nsid::ALL,
            ..ask(fid::ARBITRATION, 7, &[])
        };
        assert_eq!(features.set(all, false, 0), Ok(0));
    }

    #[test]
    fn queues_are_granted_before_there_are_any() {
        let mut features = Features::new(LIMITS);
        let fid = fid::NUMBER_OF_QUEUES;
        assert_eq!(set(&mut features, fid, 0), Ok(0x0007_0007));
        for value in [0x0000_ffff, 0xffff_0000] {
            assert_eq!(set(&mut features, fid, value), Err(Status::INVALID_FIELD));
        }
        let late = features.set(ask(fid, 0, &[]), true, 0);
        assert_eq!(late, Err(Status::COMMAND_SEQUENCE_ERROR));
    }

    #[test]
    fn vectors_are_configured_one_by_one() {
        let mut features = Features::new(LIMITS);
        set(&mut features, fid::INTERRUPT_VECTOR, 0x1_0002).unwrap();
        let read = |vector| get(&features, fid::INTERRUPT_VECTOR, 0, vector);
        assert_eq!(read(2), Ok(0x1_0002));
        assert_eq!(read(1), Ok(1));
        assert_eq!(read(4), Err(Status::INVALID_FIELD));
        assert_eq!(features.uncoalesced(), [false, false, true, false]);
    }

    #[test]
    fn each_temperature_threshold_is_kept_for_itself() {
        let mut features = Features::new(LIMITS);
        let fid = fid::TEMPERATURE_THRESHOLD;
        let (under, all) = (1 << 20, 0xf << 16);
        set(&mut features, fid, under | 280).unwrap();
        set(&mut features, fid, all | 330).unwrap();
        assert_eq!(get(&features, fid, 0, 0), Ok(330));
        assert_eq!(get(&features, fid, 0, under), Ok(280));
        // All temperatures can be set together, but not be asked for.
        assert_eq!(get(&features, fid, 0, all), Err(Status::INVALID_FIELD));
        assert_eq!(get(&features, fid, 0, 1 << 16), Err(Status::INVALID_FIELD));
    }

    #[test]
    fn a_temperature_at_a_threshold_is_a_warning_that_is_reported_if_wanted() {
        let mut features = Features::new(LIMITS);
        assert!(!features.critical_warning().temperature());
        let fid = fid::TEMPERATURE_THRESHOLD;
        for (quiet, warning) in [(311, 310), (1 << 20 | 309, 1 << 20 | 310)] {
            set(&mut features, fid, warning).unwrap();
            assert!(features.critical_warning().temperature());
            assert!(!features.reports_temperature());
            set(&mut features, fid::ASYNC_EVENTS, 0b10).unwrap();
            assert!(features.reports_temperature());
            set(&mut features, fid::ASYNC_EVENTS, 0b1111_1101).unwrap();
            assert!(!features.reports_temperature());
            set(&mut features, fid, quiet).unwrap();
            assert!(!features.critical_warning().temperature());
        }
    }

    #[test]
    fn the_timestamp_counts_from_the_start_and_then_from_what_the_host_set() {
        let mut features = Features::new(LIMITS);
        features.start_clock(5_000_000);
        let read = |features: &Features, select, now_ns| {
            let value = features.get(fid::TIMESTAMP, Select(select), 0, now_ns);
            value.unwrap().data
        };
        assert_eq!(read(&features, 0, 12_000_000), [7, 0, 0, 0, 0, 0, 0, 0]);
        let data = [0, 1, 0, 0, 0, 0, 0xff, 0xff];
        let set = features.set(ask(fid::TIMESTAMP, 0, &data), false, 12_000_000);
        assert_eq!(set, Ok(0));
        assert_eq!(read(&features, 0, 15_000_000), [3, 1, 0, 0, 0, 0, 2, 0]);
        assert_eq!(read(&features, 1, 15_000_000), [0; 8]);
        let again = Features::from_words(LIMITS, &features.to_words());
        assert_eq!(read(&again, 0, 16_000_000), [4, 1, 0, 0, 0, 0, 2, 0]);
        let last = [0xff; 8];
        let set = features.set(ask(fid::TIMESTAMP, 0, &last), false, 0);
        assert_eq!(set, Ok(0));
        assert_eq!(read(&features, 0, 1_000_000), [0, 0, 0, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn the_host_identifier_reads_back_in_both_lengths() {
        let mut features = Features::new(LIMITS);
        let read = |features: &Features, value| {
            let value = features.get(fid::HOST_IDENTIFIER, Select::CURRENT, value, 0);
            value.unwrap().data
        };
        let data: Vec<u8> = (1..=16).collect();
        let fid = fid::HOST_IDENTIFIER;
        features.set(ask(fid, 1, &data), false, 0).unwrap();
        assert_eq!(read(&features, 1), data);
        assert_eq!(read(&features, 0), data[..8]);
        assert_eq!(Features::from_words(LIMITS, &features.to_words()), features);
        features.set(ask(fid, 0, &data[8..]), false, 0).unwrap();
        assert_eq!(read(&features, 1)[..8], data[8..]);
        assert_eq!(read(&features, 1)[8..], [0; 8]);
        assert_eq!(
            (Features::data_bytes(fid, 0), Features::data_bytes(fid, 1)),
            (8, 16)
        );
    }

    #[test]
    fn a_keep_alive_timeout_is_rounded_up_within_its_field() {
        for (asked, kept) in [(0, 0), (1, 1000), (1000, 1000), (u32::MAX, 4_294_967_000)] {
            let mut features = Features::new(LIMITS);
            assert_eq!(set(&mut features, fid::KEEP_ALIVE, asked), Ok(0));
            assert_eq!(features.keep_alive_ms(), kept);
        }
    }

    proptest! {
        /// Whatever the durable state holds, what is made of it is something that could have been
        /// set, and stays the same from then on.
        #[test]
        fn any_words_give_valid_features(
            words: [u32; FEATURE_WORDS],
            write_cache: bool,
        ) {
            let limits = FeatureLimits { write_cache, ..LIMITS };
            let features = Features::from_words(limits, &words);
            prop_assert_eq!(&Features::from_words(limits, &features.to_words()), &features);
            prop_assert!(write_cache || !features.write_cache());
            prop_assert_eq!(features.uncoalesced().len(), 4);
            prop_assert_eq!(features.keep_alive_ms() % 1000, 0);
        }

        /// Any Set Features command: it succeeds, or nothing changes.
        #[test]
        fn any_command_succeeds_or_changes_nothing(
            fid: u8,
            value: u32,
            nsid in 0u32..5,
            save: bool,
            data: [u8; 16],
        ) {
            let mut features = Features::new(LIMITS);
            let fresh = features.clone();
            let data = &data[..Features::data_bytes(fid, value)];
            let command = SetFeature { nsid: Nsid(nsid), save, ..ask(fid, value, data) };
            if features.set(command, false, 1_000_000).is_err() {
                prop_assert_eq!(features, fresh);
            } else {
                let value = features.get(fid, Select::CURRENT, value, 0);
                prop_assert!(value.is_ok() || fid == fid::TEMPERATURE_THRESHOLD);
            }
        }
    }
}
