//! What a reactor does when no guest has asked for anything for a while.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::error::{ConfigError, config_error};

/// How long nothing may have happened before a reactor sleeps: guests that are at work pause for
/// less.
pub const QUIET_NS: u64 = 1_000_000;

/// Longest sleep: sockets and admin queues are looked at in between.
const SLEEP_MICROSECONDS_MAX: u64 = 10_000;

/// What an idle reactor does with its core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Idle {
    /// Polls on: the shortest latency.
    #[default]
    Spin,
    /// Polls with a PAUSE between two passes: leaves more of a core to its hyperthread sibling.
    Pause,
    /// After [`QUIET_NS`] sleeps this long between two passes: the first command after that waits
    /// as much longer at most.
    Sleep(Duration),
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
