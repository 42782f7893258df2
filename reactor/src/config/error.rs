//! Why a configuration cannot be.

/// What is wrong with a configuration: one sentence that names what, where and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Makes a [`ConfigError`] from a format string.
macro_rules! config_error {
    ($($arg:tt)*) => { crate::config::error::ConfigError(format!($($arg)*)) };
}
pub(crate) use config_error;
