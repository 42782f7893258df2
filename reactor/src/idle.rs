//! What a reactor does when no guest has asked for anything for a while.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::error::{ConfigError, config_error};

/// How long nothing may have happened before a reactor sleeps: guests that are at work pause for
/// less.
const QUIET_NS: u64 = 1_000_000;

/// Longest sleep: sockets and admin queues are looked at in between.
const SLEEP_MICROSECONDS_MAX: u64 = 10_000;
/// A sleep may grow to one part in so many of the time for which nothing has happened: what comes
/// once in a while comes by that much later at most.
const SLEEP_SHARE: u64 = 64;
/// And to so many times what was asked for.
const SLEEP_GROWTH: u32 = 16;

/// What an idle reactor does with its core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Idle {
    /// Polls on: the shortest latency.
    #[default]
    Spin,
    /// Polls with a PAUSE between two passes: leaves more of a core to its hyperthread sibling.
    Pause,
    /// Sleeps between two passes while [nothing happens](sleep), this long at first.
    Sleep(Duration),
}

/// How long a reactor sleeps that nothing has happened to for so long: not at all at first, then
/// the shortest time, and in the end 16 times that. The first command afterwards waits as much
/// longer at most.
pub fn sleep(shortest: Duration, quiet_ns: u64) -> Option<Duration> {
    let longest = Duration::from_micros(SLEEP_MICROSECONDS_MAX).min(SLEEP_GROWTH * shortest);
    let time = Duration::from_nanos(quiet_ns / SLEEP_SHARE).clamp(shortest, longest);
    (quiet_ns > QUIET_NS).then_some(time)
}

impl FromStr for Idle {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Idle, ConfigError> {
        let microseconds = text.strip_prefix("sleep=");
        let microseconds = microseconds.map(|digits| digits.parse::<u64>().unwrap_or(0));
        match (text, microseconds) {
            ("spin", _) => Ok(Idle::Spin),
            ("pause", _) => Ok(Idle::Pause),
            (_, Some(microseconds @ 1..=SLEEP_MICROSECONDS_MAX)) => {
                Ok(Idle::Sleep(Duration::from_micros(microseconds)))
            }
            _ => Err(config_error!(
                "{text:?} is not spin, pause or sleep=MICROSECONDS (1 to {SLEEP_MICROSECONDS_MAX})"
            )),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Idle::Spin => f.write_str("spin"),
            Idle::Pause => f.write_str("pause"),
            Idle::Sleep(time) => write!(f, "sleep={}", time.as_micros()),
        }
    }
}

impl TryFrom<String> for Idle {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Idle, ConfigError> {
        text.parse()
    }
}

impl From<Idle> for String {
    fn from(idle: Idle) -> String {
        idle.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_is_read_as_it_is_written() {
        let fifty = Idle::Sleep(Duration::from_micros(50));
        for (text, idle) in [
            ("spin", Idle::Spin),
            ("pause", Idle::Pause),
            ("sleep=50", fifty),
        ] {
            assert_eq!(text.parse(), Ok(idle));
            assert_eq!(idle.to_string(), text);
        }
    }

    #[test]
    fn a_sleep_grows_to_a_64th_of_the_quiet_and_16_times_what_was_asked_for() {
        let sleeps = |shortest: u64, quiet_ms: u64| {
            let shortest = Duration::from_micros(shortest);
            Some(sleep(shortest, 1_000_000 * quiet_ms + 1)?.as_micros())
        };
        let fifty = [0, 1, 3, 8, 32, 60, 10_000].map(|quiet_ms| sleeps(50, quiet_ms));
        let wanted = [
            None,
            Some(50),
            Some(50),
            Some(125),
            Some(500),
            Some(800),
            Some(800),
        ];
        assert_eq!(fifty, wanted);
        assert_eq!(sleeps(1, 10_000), Some(16));
        assert_eq!(sleeps(5000, 320), Some(5000));
        assert_eq!(sleeps(5000, 512), Some(8000));
        assert_eq!(sleeps(5000, 10_000), Some(10_000));
        assert_eq!(sleeps(10_000, 10_000), Some(10_000));
    }

    #[test]
    fn anything_else_is_refused_with_what_there_is() {
        for text in [
            "",
            "Spin",
            "sleep",
            "sleep=",
            "sleep=0",
            "sleep=10001",
            "sleep=5us",
        ] {
            let error = text.parse::<Idle>().unwrap_err().to_string();
            assert!(error.contains("sleep=MICROSECONDS"), "{text}: {error}");
        }
    }
}
