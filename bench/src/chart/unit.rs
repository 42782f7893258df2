//! Numbers with their unit, as short as they can be read.

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things: 4.1 M.
    Count,
    /// As it is: 32.
    Number,
    /// Nanoseconds: 1.2 µs.
    Time,
    /// In powers of 1024: 4 KiB.
    Bytes,
    /// Bytes per second, in powers of 1000: 30 GB/s.
    Bandwidth,
    /// A multiple: 2.31 ×.
    Ratio,
}

impl Unit {
    /// A number with three digits, without zeros at its end.
    pub(crate) fn show(self, value: f64) -> String {
        let (step, units): (f64, &[&str]) = match self {
            Unit::Count => (1e3, &["", "k", "M", "G", "T"]),
            Unit::Number => return plain(value, 5),
            Unit::Time => (1e3, &["ns", "µs", "ms", "s"]),
            Unit::Bytes => (1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
            Unit::Bandwidth => (1e3, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"]),
            Unit::Ratio => return format!("{} ×", plain(value, 3)),
        };
        let mut value = value;
        let mut unit = units[0];
        for larger in &units[1..] {
            // What would be rounded up to a thousand is one of the next unit.
            if value.abs() < step * 0.9995 {
                break;
            }
            value /= step;
            unit = larger;
        }
        format!("{} {unit}", plain(value, 3)).trim_end().to_owned()
    }
}

/// A number with so many digits, as far as it has them.
fn plain(value: f64, digits: usize) -> String {
    let whole = value.abs().max(1.0).log10().floor() as usize + 1;
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (unit, value, shown) in [
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 999.4, "999"),
            (Unit::Count, 999.6, "1 k"),
            (Unit::Count, 4_123_456.0, "4.12 M"),
            (Unit::Count, 5e6, "5 M"),
            (Unit::Count, 5e18, "5000000 T"),
            (Unit::Number, 1024.0, "1024"),
            (Unit::Time, 98.7, "98.7 ns"),
            (Unit::Time, 1234.0, "1.23 µs"),
            (Unit::Time, 2e10, "20 s"),
            (Unit::Bytes, 512.0, "512 B"),
            (Unit::Bytes, 4096.0, "4 KiB"),
            (Unit::Bytes, 1_048_576.0, "1 MiB"),
            (Unit::Bandwidth, 30.07e9, "30.1 GB/s"),
            (Unit::Number, 99.999, "99.999"),
            (Unit::Ratio, 2.3149, "2.31 ×"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }
}
