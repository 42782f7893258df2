//! Features as plain words, for the durable state.

use super::{Clock, FeatureLimits, Features, coalescing, keep_alive_ms, supported_events};

/// Words that [`Features::to_words`] needs.
pub const FEATURE_WORDS: usize = VECTOR_WORDS_AT + VECTORS_MAX;
/// Most vectors whose configuration is kept.
const VECTORS_MAX: usize = 128;
const HOST_IDENTIFIER_WORDS_AT: usize = 16;
const VECTOR_WORDS_AT: usize = 24;
const _: () = assert!(FEATURE_WORDS <= 256, "the room in the durable state");

impl Features {
    /// The values as plain words.
    pub fn to_words(&self) -> [u32; FEATURE_WORDS] {
        let mut words = [0; FEATURE_WORDS];
        let [base_low, base_high] = halves(self.clock.base_ms);
        let [since_low, since_high] = halves(self.clock.since_ms);
        let scalars = [
            self.arbitration,
            self.error_recovery.into(),
            self.temperature_over.into(),
            self.temperature_under.into(),
            self.write_cache.into(),
            self.coalescing.into(),
            self.write_atomicity.into(),
            self.async_events.into(),
            self.keep_alive_ms,
            base_low,
            base_high,
            since_low,
            since_high,
            self.clock.from_host.into(),
        ];
        words[..scalars.len()].copy_from_slice(&scalars);
        let identifier = words[HOST_IDENTIFIER_WORDS_AT..].iter_mut();
        for (word, bytes) in identifier.zip(self.host_identifier.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for (word, &disabled) in words[VECTOR_WORDS_AT..].iter_mut().zip(&self.uncoalesced) {
            *word = disabled.into();
        }
        words
    }

    /// Values that [`Features::to_words`] wrote; what is out of range is brought into it.
    pub fn from_words(limits: FeatureLimits, words: &[u32; FEATURE_WORDS]) -> Features {
        let mut features = Features::new(limits);
        features.arbitration = words[0];
        features.error_recovery = words[1] as u16;
        features.temperature_over = words[2] as u16;
        features.temperature_under = words[3] as u16;
        features.write_cache = limits.write_cache && words[4] != 0;
        features.coalescing = coalescing(words[5].into());
        features.write_atomicity = words[6] != 0;
        features.async_events = supported_events(words[7].into());
        features.keep_alive_ms = keep_alive_ms(words[8]);
        features.clock = Clock {
            base_ms: whole([words[9], words[10]]),
            since_ms: whole([words[11], words[12]]),
            from_host: words[13] != 0,
        };
        let identifier = features.host_identifier.chunks_exact_mut(4);
        for (bytes, word) in identifier.zip(&words[HOST_IDENTIFIER_WORDS_AT..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let vectors = features.uncoalesced.iter_mut();
        for (disabled, &word) in vectors.zip(&words[VECTOR_WORDS_AT..]) {
            *disabled = word != 0;
        }
        features
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
