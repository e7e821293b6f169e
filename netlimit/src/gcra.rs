//! The arithmetic of the rate limiter, as the BPF programs do it.
//!
//! GCRA: one number of state, the theoretical arrival time `tat`. A packet passes while `tat <= now + burst`; then
//! `tat = max(tat, now) + cost`. A packet that passes is charged whole even if that overdraws the bucket: a GSO packet
//! of 64 KB is never stuck, and the overdraft is paid before the next one. Time is in 1/16 ns, which holds 36 years.

use crate::limits::Cap;

pub const UNITS_PER_NS: u64 = 16;
const UNITS_PER_SEC: u128 = UNITS_PER_NS as u128 * 1_000_000_000;

/// `mult << 6 | shift`: the cost of an amount is `amount * mult >> shift`. One word, so that a program never sees
/// the multiplier of one rate with the shift of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost(pub u64);

impl Cost {
    /// No limit.
    pub const FREE: Cost = Cost(0);

    /// For a rate per second in `1..=MAX_RATE`. Rounded up, so that the rate is never exceeded.
    pub fn per(rate: u64) -> Cost {
        let rate = u128::from(rate.max(1));
        // The multiplier gets 40 bits: packets are below 2^20 bytes (BIG TCP: 512 KB), so the product fits into 64.
        let mut shift = 0u32;
        while shift < 63 && (UNITS_PER_SEC << (shift + 1)).div_ceil(rate) < 1 << 40 {
            shift += 1;
        }
        let mult = (UNITS_PER_SEC << shift).div_ceil(rate);
        Cost((mult as u64) << 6 | u64::from(shift))
    }

    pub fn of(self, amount: u64) -> u64 {
        let units = (u128::from(amount) * u128::from(self.0 >> 6)) >> (self.0 & 63);
        u64::try_from(units).unwrap_or(u64::MAX).min(MAX_BURST)
    }
}

/// About 2.3 years: keeps sums with `now` far from overflow.
const MAX_BURST: u64 = 1 << 60;

/// What a bucket is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub cost: Cost,
    /// How far `tat` may be ahead of `now`.
    pub burst: u64,
    /// The same for packets that aren't small. The difference is a reserve for pings, DNS, SYNs and requests, which
    /// would otherwise be lost whenever a bulk flow keeps the bucket empty.
    pub bulk: u64,
    /// The same from which on TCP is warned now and then, while the bucket still has a quarter for the round trips that pass
    /// until the sender slows down; 0: never.
    pub early: u64,
    /// The most that one packet may overdraw it by.
    one: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Packets,
    Connections,
}

/// Packets up to this size on the wire may use the reserve.
pub const SMALL: u32 = 256;
/// The largest packet most devices hand over at once.
const GSO: u64 = 65536;

impl Setting {
    pub fn new(rate: Cap, burst: Cap, unit: Unit, default_burst_ms: u64) -> Setting {
        let Cap::At(rate) = rate else {
            return Setting { cost: Cost::FREE, burst: 0, bulk: 0, early: 0, one: 0 };
        };
        let cost = Cost::per(rate);
        let burst = match burst {
            Cap::At(n) => cost.of(n),
            Cap::Max => default_burst_ms * 1_000_000 * UNITS_PER_NS,
        };
        let reserve = match unit {
            // Enough that a bulk packet which overdraws doesn't use it up, unless the rate is tiny.
            Unit::Bytes => cost.of(GSO).clamp(burst / 8, burst / 4),
            Unit::Packets => burst / 8,
            Unit::Connections => 0,
        };
        let one = match unit {
            Unit::Bytes => cost.of(GSO),
            // 64 KB in the smallest segments that are common.
            Unit::Packets => cost.of(GSO / 1024),
            Unit::Connections => cost.of(1),
        };
        let bulk = burst - reserve;
        let early = if unit == Unit::Bytes { bulk - bulk / 4 } else { 0 };
        Setting { cost, burst, bulk, early, one }
    }

    /// A queue of `burst + wait` bytes seen as a bucket: an eighth of what may wait is kept for small packets, so that
    /// the bulk which fills the queue doesn't cost pings and requests.
    pub fn queue(rate: u64, burst: u64, wait: u64) -> Setting {
        let cost = Cost::per(rate);
        let one = cost.of(GSO);
        let at = |waiting| cost.of(burst + waiting);
        Setting { cost, burst: at(wait), bulk: at(wait - wait / 8), early: 0, one }
    }

    /// The same rate for the second check of the same traffic further on: deeper by one packet and a tenth, so that
    /// what passed the first in order passes again after some jitter, and the rate is the same to the last byte.
    #[must_use]
    pub fn backstop(self) -> Setting {
        let deeper = self.burst.saturating_add(self.burst / 10).saturating_add(self.one).min(MAX_BURST);
        Setting { burst: deeper, bulk: deeper, early: 0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program's rule, for one bucket.
    fn pass(s: &Setting, tat: &mut u64, now: u64, amount: u64) -> bool {
        let limit = now + s.bulk;
        if *tat > limit {
            return false;
        }
        *tat = (*tat).max(now) + s.cost.of(amount);
        true
    }

    #[test]
    fn cost_is_exact_to_a_millionth_and_never_too_low() {
        for rate in [1, 7, 125_000, 12_500_000, 1_250_000_000, 12_345_678_901, 1_000_000_000_000] {
            let exact = 1514.0 * 16e9 / rate as f64;
            let got = Cost::per(rate).of(1514) as f64;
            assert!((got - exact).abs() <= exact * 1e-6 + 1.0, "{rate}: {got} {exact}");
            assert!(Cost::per(rate).0 >> 6 < 1 << 40);
        }
    }

    #[test]
    fn a_window_never_holds_more_than_rate_burst_and_one_packet() {
        let s = Setting::new(Cap::At(1_000_000), Cap::At(50_000), Unit::Bytes, 250);
        let (mut tat, mut passed, start) = (0, 0u64, 1 << 40);
        for step in 0..1000u64 {
            let now = start + step * 1_000_000 * UNITS_PER_NS; // every millisecond
            for amount in [65_536, 1514, 60] {
                if pass(&s, &mut tat, now, amount) {
                    passed += amount;
                }
            }
            let bound = (step + 1) * 1000 + 50_000 + 65_536;
            assert!(passed <= bound, "after {step} ms {passed} > {bound}");
        }
        assert!(passed > 990_000, "{passed}");
    }

    #[test]
    fn the_reserve_is_a_part_of_the_burst() {
        let s = Setting::new(Cap::At(1_250_000), Cap::Max, Unit::Bytes, 250);
        assert_eq!(s.burst, 250_000_000 * 16);
        assert_eq!(s.burst - s.bulk, s.cost.of(65536));
        assert_eq!(s.early, s.bulk - s.bulk / 4);
        assert_eq!(s.backstop().early, 0, "one of two that see a packet warns");
        let c = Setting::new(Cap::At(5), Cap::Max, Unit::Connections, 1000);
        assert_eq!(c.burst, c.bulk);
    }
}
