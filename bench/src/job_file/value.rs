//! Values of options, as fio writes them.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Digits with an optional k, m, g, t or p in powers of 1024, in either case, and an optional b.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    if lower.ends_with("ib") {
        return Err("fio means powers of 1000 by it: write k, m or g".to_owned());
    }
    let (digits, unit) = split(lower.strip_suffix('b').unwrap_or(&lower));
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err("it is not a size like 4096, 4k or 1g".to_owned()),
    };
    let bytes = number::<u64>(digits)?.checked_mul(1 << shift);
    bytes.ok_or_else(|| "it is too large".to_owned())
}

/// A size; none for `100%`, which is all there is.
pub(super) fn size_or_all(text: &str) -> Result<Option<u64>, String> {
    match text {
        "100%" => Ok(None),
        text => size(text).map(Some),
    }
}

/// A time, in seconds unless it has another unit; none for zero, which is no limit.
pub(super) fn time(text: &str) -> Result<Option<Duration>, String> {
    let time = in_unit(text, "s")?;
    Ok((!time.is_zero()).then_some(time))
}

/// A time, in microseconds unless it says otherwise.
pub(crate) fn microseconds(text: &str) -> Result<Duration, String> {
    in_unit(text, "us")
}

/// A time in its own unit, or in this one.
fn in_unit(text: &str, default: &str) -> Result<Duration, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = split(&lower);
    let microseconds = match if unit.is_empty() { default } else { unit } {
        "us" | "usec" => 1,
        "ms" | "msec" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err("it is not a time like 30, 30s, 5m or 500ms".to_owned()),
    };
    let time = number::<u64>(digits)?.checked_mul(microseconds);
    let time = time.ok_or("it is too long")?;
    Ok(Duration::from_micros(time))
}

/// Digits, and what follows them.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Digits only.
pub(super) fn number<N: FromStr>(text: &str) -> Result<N, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is not a number".to_owned());
    }
    text.parse().map_err(|_| "it is too large".to_owned())
}

/// One at least.
pub(super) fn count(text: &str) -> Result<u16, String> {
    match number(text)? {
        0 => Err("it has to be 1 at least".to_owned()),
        count => Ok(count),
    }
}

pub(super) fn percent(text: &str) -> Result<u8, String> {
    match number(text)? {
        percent @ 0..=100 => Ok(percent),
        _ => Err("it is more than 100".to_owned()),
    }
}

/// A flag is set by its name alone.
pub(super) fn flag(text: Option<&str>) -> Result<bool, String> {
    match text {
        None | Some("1") => Ok(true),
        Some("0") => Ok(false),
        Some(_) => Err("it is neither 0 nor 1".to_owned()),
    }
}

/// Blocks are told by what fio calls `meta`; checksums of its own kinds are not made.
pub(super) fn verify(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "meta" => Ok(true),
        _ => Err("only `meta` is known: blocks that carry their address and generation".to_owned()),
    }
}

/// Paths are separated by colons; `\:` is a colon in one.
pub(super) fn paths(text: &str) -> Vec<PathBuf> {
    let mut paths = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.next_if_eq(&':').is_some() => push(&mut paths, ':'),
            ':' => paths.push(String::new()),
            other => push(&mut paths, other),
        }
    }
    let paths = paths.into_iter().filter(|path| !path.is_empty());
    paths.map(PathBuf::from).collect()
}

fn push(paths: &mut [String], character: char) {
    if let Some(path) = paths.last_mut() {
        path.push(character);
    }
}

/// A text with the value of each variable where its `${NAME}` is.
pub(super) fn expanded(text: &str, variable: fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, begun)) = rest.split_once("${") {
        let (name, after) = begun.split_once('}').ok_or("`${` has no `}`")?;
        let value = variable(name);
        expanded += before;
        expanded += &value.ok_or_else(|| format!("the environment has no variable `{name}`"))?;
        rest = after;
    }
    Ok(expanded + rest)
}

/// What has a grammar of its own.
pub(super) fn other<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_fio() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("4kb", 4096),
            ("3M", 3 << 20),
            ("1gB", 1 << 30),
            ("2t", 2 << 40),
            ("1p", 1 << 50),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "k", "-1", "1.5g", "4kk", "4kib", "4 k", "4k,8k", "4k-8k", "0x10", "16384p",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size_or_all("100%"), Ok(None));
        assert_eq!(size_or_all("1m"), Ok(Some(1 << 20)));
        assert!(size_or_all("50%").is_err());
    }

    #[test]
    fn times_are_those_of_fio() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("1S", 1000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1500ms", 1500),
            ("2msec", 2),
            ("3000us", 3),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(time(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(time("0"), Ok(None));
        for (text, expected) in [
            ("0", 0),
            ("30", 30),
            ("30us", 30),
            ("2ms", 2000),
            ("1s", 1_000_000),
        ] {
            assert_eq!(
                microseconds(text),
                Ok(Duration::from_micros(expected)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1.5",
            "-1",
            "1w",
            "1 s",
            "99999999999999999999",
            "9999999999999999d",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_separated_by_colons_that_can_be_escaped() {
        let expected: Vec<PathBuf> = vec!["/a".into(), "b:c".into(), "d\\e".into()];
        assert_eq!(paths("/a:b\\:c::d\\e"), expected);
    }

    #[test]
    fn variables_are_replaced_and_have_to_be_there() {
        let of = |text| expanded(text, |name| (name == "DIR").then(|| "/run".to_owned()));
        assert_eq!(of("4k").as_deref(), Ok("4k"));
        assert_eq!(of("${DIR}/a:${DIR}/b").as_deref(), Ok("/run/a:/run/b"));
        assert_eq!(of("$DIR}").as_deref(), Ok("$DIR}"));
        assert!(of("${OTHER}").expect_err("unset").contains("`OTHER`"));
        assert!(of("${DIR").is_err());
    }

    #[test]
    fn numbers_have_their_bounds() {
        assert_eq!((count("1"), count("65535")), (Ok(1), Ok(65_535)));
        assert!(count("0").is_err() && count("65536").is_err() && count("+1").is_err());
        assert_eq!((percent("0"), percent("100")), (Ok(0), Ok(100)));
        assert!(percent("101").is_err() && percent("300").is_err());
        assert_eq!((flag(None), flag(Some("0"))), (Ok(true), Ok(false)));
        assert!(flag(Some("yes")).is_err());
        assert_eq!((verify("0"), verify("meta")), (Ok(false), Ok(true)));
        assert!(verify("md5").is_err());
    }
}
