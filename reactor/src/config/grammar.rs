//! How an argument is cut into keys and values.

use super::error::{ConfigError, config_error};
use crate::cpu::CoreMask;

/// The keys and values of one argument, each to be taken once.
pub(super) struct Fields {
    /// The argument, for messages.
    whole: String,
    fields: Vec<(String, String)>,
}

/// Cuts at commas. A comma inside `[ ]` does not separate, and `,,` is a literal comma.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0u32;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 && chars.peek() == Some(&',') => {
                chars.next();
            }
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

impl Fields {
    /// Reads `key=value` parts; only keys in `repeatable` may come more than once.
    pub(super) fn parse(
        whole: &str,
        parts: &[String],
        repeatable: &[&str],
    ) -> Result<Fields, ConfigError> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(config_error!("{whole:?}: {part:?} is not key=value"));
            };
            let twice = fields.iter().any(|(known, _)| known == key);
            if twice && !repeatable.contains(&key) {
                return Err(config_error!("{whole:?}: {key} is given twice"));
            }
            if value.is_empty() {
                return Err(config_error!("{whole:?}: {key} has no value"));
            }
            fields.push((key.to_owned(), value.to_owned()));
        }
        Ok(Fields {
            whole: whole.to_owned(),
            fields,
        })
    }

    /// Takes the next value of a key.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let index = self.fields.iter().position(|(known, _)| known == key)?;
        Some(self.fields.remove(index).1)
    }

    /// Takes a value that must be there.
    pub(super) fn need(&mut self, key: &str) -> Result<String, ConfigError> {
        self.take(key)
            .ok_or_else(|| config_error!("{:?}: {key}= is missing", self.whole))
    }

    /// Takes a value and reads it.
    pub(super) fn read<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let read = parse(&value);
        read.map(Some)
            .map_err(|error| config_error!("{:?}: {key}: {error}", self.whole))
    }

    /// Takes `on` or `off`.
    pub(super) fn switch(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, |value| match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(config_error!("{value:?} is neither on nor off")),
        })
    }

    /// Takes a number from `low` to `high`.
    pub(super) fn number(
        &mut self,
        key: &str,
        low: u16,
        high: u16,
    ) -> Result<Option<u16>, ConfigError> {
        self.read(key, |value| {
            let number = value
                .parse::<u16>()
                .ok()
                .filter(|n| (low..=high).contains(n));
            number.ok_or_else(|| config_error!("{value:?} is not a number from {low} to {high}"))
        })
    }

    /// Takes a size.
    pub(super) fn size(&mut self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.read(key, bdev::size::parse_size)
    }

    /// Takes a core mask.
    pub(super) fn mask(&mut self, key: &str) -> Result<Option<CoreMask>, ConfigError> {
        self.read(key, str::parse::<CoreMask>)
    }

    /// Everything was taken.
    pub(super) fn finish(self, known: &str) -> Result<(), ConfigError> {
        match self.fields.first() {
            None => Ok(()),
            Some((key, _)) => Err(config_error!(
                "{:?}: there is no key {key:?} here; keys are {known}",
                self.whole
            )),
        }
    }
}

/// A name of a disk: `[A-Za-z0-9._-]{1,63}`.
pub(super) fn check_name(name: &str) -> Result<(), ConfigError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 63 || !name.bytes().all(valid) {
        return Err(config_error!(
            "{name:?} is not a name: 1 to 63 letters, digits, dots, underscores and dashes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate_outside_brackets_unless_doubled() {
        let cases: [(&str, &[&str]); 6] = [
            ("a=1,b=2", &["a=1", "b=2"]),
            ("a=[1,2],b", &["a=[1,2]", "b"]),
            ("path=/a,,b,c", &["path=/a,b", "c"]),
            ("a=b=c:d", &["a=b=c:d"]),
            (",,,", &[",", ""]),
            ("", &[""]),
        ];
        for (text, parts) in cases {
            assert_eq!(split(text), parts, "{text}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "disk0.img_1-x", &"x".repeat(63)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "a b", "a/b", "\u{e4}", "a@1", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
