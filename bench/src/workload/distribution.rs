//! How random commands are spread over what they may touch: evenly, or so that some parts are
//! hotter than others, as fio's `random_distribution` says it.

use std::fmt;
use std::str::FromStr;

use super::rng::Rng;

/// How many zones there may be, as in fio.
const ZONES_MAX: usize = 256;

/// How random commands are spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Every place is as likely as any other.
    #[default]
    Random,
    /// Zones that follow one another and together are everything.
    Zoned(Vec<Zone>),
}

/// A share of all commands that goes to a share of all places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    access_percent: u8,
    size_percent: u8,
}

/// Why a text is not a distribution.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DistributionError {
    #[error("`{0}` is neither `random` nor `zoned:ACCESS/SIZE:ACCESS/SIZE...`")]
    Unknown(String),
    #[error("reads and writes have one list of zones: `,` cannot begin another")]
    Comma,
    #[error("`{0}` is not a zone like 60/10: a percentage of all commands, and one of all places")]
    Zone(String),
    #[error("zone `{0}` has commands and no place for them")]
    NoPlace(String),
    #[error("the zones have {0} % of the commands together: it has to be 100")]
    Access(u32),
    #[error("the zones have {0} % of the places together: it has to be 100")]
    Size(u32),
    #[error("{0} zones are more than {ZONES_MAX}")]
    Many(usize),
}

impl Distribution {
    /// The draws from `places` places. None if a zone has commands, and less than one place.
    pub(super) fn over(&self, places: u64) -> Option<Draw> {
        let Distribution::Zoned(zones) = self else {
            return Some(Draw::Even { places });
        };
        let (mut by_percent, mut before) = (Vec::new(), 0);
        for zone in zones {
            let [start, end] = [before, before + u64::from(zone.size_percent)]
                .map(|percent| (u128::from(places) * u128::from(percent) / 100) as u64);
            before += u64::from(zone.size_percent);
            let range = Range {
                start,
                places: end - start,
            };
            if zone.access_percent > 0 && range.places == 0 {
                return None;
            }
            by_percent.extend((0..zone.access_percent).map(|_| range));
        }
        Some(Draw::Zoned { by_percent })
    }
}

/// Draws one place after another.
#[derive(Clone, Debug)]
pub(super) enum Draw {
    Even {
        places: u64,
    },
    Zoned {
        /// Where each per cent of the commands goes: a hundred.
        by_percent: Vec<Range>,
    },
}

/// Places that follow one another, one at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    start: u64,
    places: u64,
}

impl Draw {
    #[inline]
    pub(super) fn next(&self, rng: &mut Rng) -> u64 {
        match self {
            Draw::Even { places } => rng.below(*places),
            Draw::Zoned { by_percent } => {
                let percent = rng.below(by_percent.len() as u64) as usize;
                let Range { start, places } = by_percent[percent];
                start + rng.below(places)
            }
        }
    }
}

impl FromStr for Distribution {
    type Err = DistributionError;

    /// `random`, or `zoned:ACCESS/SIZE:ACCESS/SIZE...` with whole percentages; zones without a SIZE
    /// share what the others leave.
    fn from_str(text: &str) -> Result<Distribution, DistributionError> {
        match text.strip_prefix("zoned:") {
            None if text == "random" => Ok(Distribution::Random),
            None => Err(DistributionError::Unknown(text.to_owned())),
            Some(list) if list.contains(',') => Err(DistributionError::Comma),
            Some(list) => zones(list).map(Distribution::Zoned),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Distribution::Zoned(zones) = self else {
            return f.write_str("random");
        };
        f.write_str("zoned")?;
        zones.iter().try_for_each(|zone| {
            let (access, size) = (zone.access_percent, zone.size_percent);
            write!(f, ":{access}/{size}")
        })
    }
}

fn zones(list: &str) -> Result<Vec<Zone>, DistributionError> {
    let parts: Vec<&str> = list.split(':').collect();
    if parts.len() > ZONES_MAX {
        return Err(DistributionError::Many(parts.len()));
    }
    let read =
        |part: &&str| shares(part).ok_or_else(|| DistributionError::Zone((*part).to_owned()));
    let shares: Vec<(u8, Option<u8>)> = parts.iter().map(read).collect::<Result<_, _>>()?;
    let access: u32 = shares.iter().map(|(access, _)| u32::from(*access)).sum();
    if access != 100 {
        return Err(DistributionError::Access(access));
    }
    let sized: u32 = shares
        .iter()
        .filter_map(|(_, size)| size.map(u32::from))
        .sum();
    let open = shares.iter().filter(|(_, size)| size.is_none()).count() as u32;
    let rest = 100_u32.saturating_sub(sized).checked_div(open).unwrap_or(0);
    if sized + open * rest != 100 {
        return Err(DistributionError::Size(sized + open * rest));
    }
    let zone = |(part, (access_percent, size)): (&&str, (u8, Option<u8>))| {
        let size_percent = size.unwrap_or(rest as u8);
        if access_percent > 0 && size_percent == 0 {
            return Err(DistributionError::NoPlace((*part).to_owned()));
        }
        Ok(Zone {
            access_percent,
            size_percent,
        })
    };
    parts.iter().zip(shares).map(zone).collect()
}

/// `60/10`; without a size it is `60/` or `60`.
fn shares(part: &str) -> Option<(u8, Option<u8>)> {
    let (access, size) = part.split_once('/').unwrap_or((part, ""));
    let size = match size {
        "" => None,
        size => Some(percent(size)?),
    };
    Some((percent(access)?, size))
}

fn percent(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|value| *value <= 100);
    value.filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let distribution = text.parse::<Distribution>();
        distribution
            .map(|d| d.to_string())
            .map_err(|e| e.to_string())
    }

    /// How many of 100,000 draws from 1000 places fall below each of `bounds`, and above the last.
    fn counts(text: &str, bounds: &[u64]) -> Vec<u32> {
        let distribution: Distribution = text.parse().expect(text);
        let draw = distribution.over(1000).expect("places");
        let mut rng = Rng::new(11);
        let mut counts = vec![0; bounds.len() + 1];
        for _ in 0..100_000 {
            let place = draw.next(&mut rng);
            assert!(place < 1000);
            counts[bounds.partition_point(|bound| *bound <= place)] += 1;
        }
        counts
    }

    /// Whether a count of 100,000 is that of so many per cent, within six standard deviations.
    fn is_percent(count: u32, percent: f64) -> bool {
        let share = percent / 100.0;
        let deviation = (100_000.0 * share * (1.0 - share)).sqrt();
        (f64::from(count) - 100_000.0 * share).abs() <= 6.0 * deviation
    }

    #[test]
    fn each_zone_gets_its_share_of_the_commands() {
        for (text, bounds, shares) in [
            (
                "zoned:60/10:30/20:8/30:2/40",
                vec![100, 300, 600],
                vec![60.0, 30.0, 8.0, 2.0],
            ),
            (
                "zoned:50/5:30/15:20/",
                vec![50, 200],
                vec![50.0, 30.0, 20.0],
            ),
            (
                "zoned:0/50:100/1:0/49",
                vec![500, 510],
                vec![0.0, 100.0, 0.0],
            ),
            ("random", vec![10, 500], vec![1.0, 49.0, 50.0]),
        ] {
            let counts = counts(text, &bounds);
            let fits = counts
                .iter()
                .zip(&shares)
                .all(|(n, share)| is_percent(*n, *share));
            assert!(fits, "{text}: {counts:?}");
        }
    }

    #[test]
    fn within_a_zone_each_place_is_as_likely_as_any_other() {
        let counts = counts("zoned:80/20:20/80", &[50, 100, 150, 200, 400, 600, 800]);
        let shares = [20.0, 20.0, 20.0, 20.0, 5.0, 5.0, 5.0, 5.0];
        let fits = counts
            .iter()
            .zip(shares)
            .all(|(n, share)| is_percent(*n, share));
        assert!(fits, "{counts:?}");
    }

    #[test]
    fn every_place_of_a_zone_comes_and_few_places_make_no_zones() {
        let distribution: Distribution = "zoned:50/50:50/50".parse().expect("zones");
        assert!(distribution.over(1).is_none());
        for places in [2, 3, 7] {
            let draw = distribution.over(places).expect("places");
            let mut rng = Rng::new(1);
            let mut seen: Vec<u64> = (0..1000).map(|_| draw.next(&mut rng)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert!(seen.into_iter().eq(0..places), "{places}");
        }
        assert!(distribution.over(u64::MAX).is_some());
    }

    #[test]
    fn sizes_that_are_left_out_share_the_rest() {
        assert_eq!(parsed("random").as_deref(), Ok("random"));
        let same = "zoned:60/10:30/20:8/30:2/40";
        assert_eq!(parsed(same).as_deref(), Ok(same));
        let rest = parsed("zoned:50/20:30/:10:10/");
        assert_eq!(
            rest.unwrap_err(),
            "the zones have 98 % of the places together: it has to be 100"
        );
        assert_eq!(
            parsed("zoned:50/20:30/:20").as_deref(),
            Ok("zoned:50/20:30/40:20/40")
        );
        assert_eq!(parsed("zoned:100").as_deref(), Ok("zoned:100/100"));
    }

    #[test]
    fn what_is_no_distribution_is_refused_with_the_reason() {
        for (text, named) in [
            ("zipf:1.2", "neither"),
            ("zoned", "neither"),
            ("zoned:", "`` is not a zone"),
            ("zoned:60/10:", "`` is not a zone"),
            ("zoned:60/10/3:40/90", "60/10/3"),
            ("zoned:+60/10:40/90", "+60/10"),
            ("zoned:101/100", "101/100"),
            ("zoned:60/10:30/90", "90 % of the commands"),
            ("zoned:60/10:50/90", "110 % of the commands"),
            ("zoned:60/10:40/80", "90 % of the places"),
            ("zoned:60/30:40/80", "110 % of the places"),
            ("zoned:60/100:40/", "`40/` has commands and no place"),
            ("zoned:60/0:40/100", "`60/0` has commands and no place"),
            ("zoned:60/10:40/90,50/50:50/50", "one list"),
            (&format!("zoned:100/100{}", ":0/0".repeat(256)), "257 zones"),
        ] {
            let refused = parsed(text).expect_err(text);
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
