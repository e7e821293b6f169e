//! Time stamps as RFC 3339 has them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-23T00:10:38Z`, as log lines have it.
pub fn seconds(time: SystemTime) -> String {
    format!("{}Z", civil(since_epoch(time).0))
}

/// `2026-11-23T00:10:38.123456789Z`, as runc's state has it: without the zeros at the end of the fraction.
pub fn nanoseconds(time: SystemTime) -> String {
    let (secs, nanos) = since_epoch(time);
    let fraction = format!(".{nanos:09}");
    format!("{}{}Z", civil(secs), fraction.trim_end_matches('0').trim_end_matches('.'))
}

/// Seconds since 1970 of a time stamp as this module writes them.
pub fn parse(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // The reverse of `civil`.
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(days * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?)
}

/// A clock before 1970 counts as 1970.
fn since_epoch(time: SystemTime) -> (u64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar: eras of 400 years that begin in March, so
/// that the leap day is the last of its year.
fn civil(secs: u64) -> String {
    let (days, in_day) = (secs / 86_400 + 719_468, secs % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        for (secs, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(seconds(UNIX_EPOCH + Duration::from_secs(secs)), want);
            assert_eq!(parse(want), Some(secs));
        }
        let at = |nanos| nanoseconds(UNIX_EPOCH + Duration::new(1, nanos));
        assert_eq!(at(0), "1970-01-01T00:00:01Z");
        assert_eq!(at(120_000_000), "1970-01-01T00:00:01.12Z");
        assert_eq!(at(9), "1970-01-01T00:00:01.000000009Z");
    }
}
