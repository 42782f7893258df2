//! How wide texts are, about, and where they go so that none covers another.

/// The width of a text in pixels, about, at a size: nobody knows which font the reader has.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let em = |character: char| match character {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '!' | '\'' => 0.28,
        'f' | 'r' | 't' | ' ' | '-' | '(' | ')' | '/' => 0.36,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.88,
        'A'..='Z' => 0.68,
        _ if character.is_ascii() => 0.58,
        // Of other scripts, some are as wide as they are high.
        _ => 0.8,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// As much of a text as fits, with an ellipsis if that is not all.
pub(super) fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut short: String = text.to_owned();
    while short.pop().is_some() && width(&short, size) + size > room {}
    short.trim_end().to_owned() + "…"
}

/// Moves places apart until each is `gap` from the next, all between `low` and `high` as far as
/// there is room, and as little as possible in sum of squares. Their order stays.
pub(super) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    // Less the gaps before it, each place only has to be no less than the one before: places that
    // are not are pooled, and go to their mean.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (rank, index) in order.iter().enumerate() {
        let mut pool = (wanted[*index] - gap * rank as f64, 1);
        while let Some((mean, count)) = pools.last().copied().filter(|last| last.0 > pool.0) {
            pools.pop();
            let members = count + pool.1;
            let sum = mean * count as f64 + pool.0 * pool.1 as f64;
            pool = (sum / members as f64, members);
        }
        pools.push(pool);
    }
    let last = gap * wanted.len().saturating_sub(1) as f64;
    let means = pools
        .iter()
        .flat_map(|(mean, count)| std::iter::repeat_n(*mean, *count));
    let mut places = vec![0.0; wanted.len()];
    for (rank, (index, mean)) in order.into_iter().zip(means).enumerate() {
        places[index] = mean.min(high - last).max(low) + gap * rank as f64;
    }
    places
}

/// Which of the places, ascending and with a width each, can be labelled without one label touching
/// another. The last one is always.
pub(super) fn without_overlap(places: &[(f64, f64)], gap: f64) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    let mut free = f64::INFINITY;
    for (index, (middle, width)) in places.iter().enumerate().rev() {
        if middle + width / 2.0 + gap <= free {
            kept.push(index);
            free = middle - width / 2.0;
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_have_room_stay_where_they_are() {
        assert_eq!(
            spread(&[30.0, 10.0, 50.0], 15.0, 0.0, 100.0),
            [30.0, 10.0, 50.0]
        );
        assert_eq!(spread(&[], 15.0, 0.0, 100.0), [0.0; 0]);
    }

    #[test]
    fn labels_move_apart_evenly_and_keep_their_order() {
        assert_eq!(spread(&[50.0, 50.0], 10.0, 0.0, 100.0), [45.0, 55.0]);
        assert_eq!(
            spread(&[51.0, 50.0, 90.0], 10.0, 0.0, 100.0),
            [55.5, 45.5, 90.0]
        );
        let places = spread(&[40.0, 42.0, 55.0], 10.0, 0.0, 100.0);
        assert!(places.is_sorted() && places.windows(2).all(|p| p[1] - p[0] >= 10.0 - 1e-9));
    }

    #[test]
    fn labels_stay_between_the_bounds() {
        assert_eq!(spread(&[99.0, 100.0], 10.0, 0.0, 100.0), [90.0, 100.0]);
        assert_eq!(spread(&[-5.0, 1.0], 10.0, 0.0, 100.0), [0.0, 10.0]);
    }

    #[test]
    fn a_long_text_is_cut_to_its_room() {
        assert_eq!(fit("malloc", 12.0, 100.0), "malloc");
        let cut = fit("a name that is far too long", 12.0, 80.0);
        assert!(cut.ends_with('…') && cut.starts_with("a name"), "{cut}");
        assert!(width(&cut, 12.0) <= 80.0);
        assert_eq!(fit("anything", 12.0, 0.0), "…");
    }

    #[test]
    fn labels_that_would_touch_are_left_out_from_the_right() {
        let places = [(0.0, 10.0), (11.0, 10.0), (30.0, 10.0), (32.0, 10.0)];
        assert_eq!(without_overlap(&places, 2.0), [1, 3]);
        assert_eq!(without_overlap(&places, 0.0), [0, 1, 3]);
    }
}
