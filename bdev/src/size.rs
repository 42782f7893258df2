//! The one grammar of sizes: digits, then optionally k, m, g or t in any case, then optionally
//! `iB`. Powers of 1024, always.

use thiserror::Error;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a size: {reason} (examples: 4096, 4k, 512MiB, 10G)")]
pub struct SizeError {
    text: String,
    reason: &'static str,
}

/// Reads a size in bytes.
///
/// # Errors
/// [`SizeError`] for anything else, and for sizes of 2^64 bytes or more.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let error = |reason| SizeError {
        text: text.to_owned(),
        reason,
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(error("it does not begin with a digit"));
    }
    let number: u64 = number.parse().map_err(|_| error("it is too large"))?;
    let prefix = unit.strip_suffix("iB").unwrap_or(unit);
    let shift = match prefix {
        "" if unit.is_empty() => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(error("its unit is not k, m, g or t with an optional iB")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| error("it is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_size_is_read() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("4k", 4096),
            ("4KiB", 4096),
            ("512MiB", 512 << 20),
            ("10G", 10 << 30),
            ("1t", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, size) in cases {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "k", "-1", "1.5G", "4kb", "4 k", "4KB", "4iB", "1e3", "0x10", " 4", "4kk",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["18446744073709551616", "16777216T", "99999999999999999999G"] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error.reason, "it is too large", "{text}");
        }
    }
}
