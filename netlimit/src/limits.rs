//! What may be asked for. Pure data: nothing here touches the kernel.

use std::collections::BTreeMap;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};

/// An upper bound that can be lifted. In JSON a number, or `"max"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// No limit; for a burst: the default one.
    Max,
    /// At most this many, in the unit of the field.
    At(u64),
}

/// How the rate into the container is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngressMode {
    /// Packets over the rate are dropped: no added delay.
    #[default]
    Police,
    /// Packets over the rate wait, at most 62.5 ms or 32 packets' worth, on the host's end of the veth:
    /// fewer retransmissions, more delay.
    Queue,
}

/// What is asked for. `None` leaves a knob as it is (at first: without limit).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// Bytes per second out of the container, link headers included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_rate: Option<Cap>,
    /// Bytes per second into the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_rate: Option<Cap>,
    /// Packets per second, counted as on the wire: a GSO packet is as many as it is cut into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_pps: Option<Cap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_pps: Option<Cap>,
    /// Bytes that may pass at once after a pause. `Max` is the default, see [`DEFAULT_BURST_MS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_burst: Option<Cap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_burst: Option<Cap>,
    /// Packets that may pass at once after a pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_pps_burst: Option<Cap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_pps_burst: Option<Cap>,
    /// Connections the container may open per second: TCP by their SYN, other protocols by the first
    /// packet of a flow (address, ports, protocol) that the container began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_conns: Option<Cap>,
    /// Connections at once after a pause. The default is one second's worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_conns_burst: Option<Cap>,
    /// net_cls's class id, `0xAAAABBBB` for the tc handle AAAA:BBBB. 0 removes the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classid: Option<u32>,
    /// net_prio's map: priority by interface name. An empty map removes all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<BTreeMap<String, u32>>,
    /// Whether traffic over `lo` counts. Default: only where others share it (host network, joined namespace).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_loopback: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_mode: Option<IngressMode>,
}

/// The default burst of the byte and packet rates, in milliseconds of the rate. TCP that shares a host's memory
/// with a policer waits RTO_min (200 ms) after a lost tail; a bucket that holds less than that, for bulk, is never refilled
/// in time. See docs/netlimit.md for the measurements.
pub const DEFAULT_BURST_MS: u64 = 300;

/// More interfaces than this don't fit into the priority map.
pub const MAX_PRIORITIES: usize = 8;

/// The greatest rate: 1 TB/s. Beyond it the fixed point arithmetic would lose precision.
pub const MAX_RATE: u64 = 1_000_000_000_000;

impl Limits {
    /// Whether nothing at all is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// Refuses values no host could hold. Names are the knobs' (`net.egress-rate`).
    pub fn validate(&self) -> Result<()> {
        let rates = [
            ("net.egress-rate", self.egress_rate),
            ("net.ingress-rate", self.ingress_rate),
            ("net.egress-pps", self.egress_pps),
            ("net.ingress-pps", self.ingress_pps),
            ("net.new-conns", self.new_conns),
        ];
        for (name, cap) in rates {
            match cap {
                Some(Cap::At(0)) => {
                    return Err(Error::invalid(format!(
                        "{name}: 0 would stop all traffic; `max` lifts the limit"
                    )))
                }
                Some(Cap::At(n)) if n > MAX_RATE => {
                    return Err(Error::invalid(format!("{name}: {n} per second is more than {MAX_RATE}")))
                }
                _ => {}
            }
        }
        for (name, priority) in self.priority.iter().flatten() {
            if name.is_empty() || name.len() > 15 || name.contains(['/', ' ', '\0', '\n']) {
                return Err(Error::invalid(format!(
                    "net.priority: {name:?} is no name of a network interface"
                )));
            }
            // 0xffffffff marks "none" inside the kernel's own map too.
            if *priority == u32::MAX {
                return Err(Error::invalid(format!("net.priority: {priority} is out of range")));
            }
        }
        if self.priority.as_ref().is_some_and(|p| p.len() > MAX_PRIORITIES) {
            return Err(Error::invalid(format!("net.priority: more than {MAX_PRIORITIES} interfaces")));
        }
        Ok(())
    }

    /// As [`crate::current`] tells them: lifted limits, default bursts and empty maps aren't there.
    pub(crate) fn lifted_left_out(&self) -> Limits {
        let at = |cap: Option<Cap>| cap.filter(|c| *c != Cap::Max);
        Limits {
            egress_rate: at(self.egress_rate),
            ingress_rate: at(self.ingress_rate),
            egress_pps: at(self.egress_pps),
            ingress_pps: at(self.ingress_pps),
            egress_burst: at(self.egress_burst),
            ingress_burst: at(self.ingress_burst),
            egress_pps_burst: at(self.egress_pps_burst),
            ingress_pps_burst: at(self.ingress_pps_burst),
            new_conns: at(self.new_conns),
            new_conns_burst: at(self.new_conns_burst),
            classid: self.classid.filter(|c| *c != 0),
            priority: self.priority.clone().filter(|p| !p.is_empty()),
            count_loopback: self.count_loopback,
            ingress_mode: self.ingress_mode.filter(|m| *m == IngressMode::Queue),
        }
    }

    /// These limits, with whatever `change` says put over them.
    #[must_use]
    pub fn merged(&self, change: &Limits) -> Limits {
        let c = change;
        Limits {
            egress_rate: c.egress_rate.or(self.egress_rate),
            ingress_rate: c.ingress_rate.or(self.ingress_rate),
            egress_pps: c.egress_pps.or(self.egress_pps),
            ingress_pps: c.ingress_pps.or(self.ingress_pps),
            egress_burst: c.egress_burst.or(self.egress_burst),
            ingress_burst: c.ingress_burst.or(self.ingress_burst),
            egress_pps_burst: c.egress_pps_burst.or(self.egress_pps_burst),
            ingress_pps_burst: c.ingress_pps_burst.or(self.ingress_pps_burst),
            new_conns: c.new_conns.or(self.new_conns),
            new_conns_burst: c.new_conns_burst.or(self.new_conns_burst),
            classid: c.classid.or(self.classid),
            priority: c.priority.clone().or_else(|| self.priority.clone()),
            count_loopback: c.count_loopback.or(self.count_loopback),
            ingress_mode: c.ingress_mode.or(self.ingress_mode),
        }
    }
}

impl Serialize for Cap {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Cap::Max => s.serialize_str("max"),
            Cap::At(n) => s.serialize_u64(*n),
        }
    }
}

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Cap, D::Error> {
        struct CapVisitor;
        impl Visitor<'_> for CapVisitor {
            type Value = Cap;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or \"max\"")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> std::result::Result<Cap, E> {
                Ok(Cap::At(n))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> std::result::Result<Cap, E> {
                match s {
                    "max" => Ok(Cap::Max),
                    _ => Err(E::invalid_value(de::Unexpected::Str(s), &self)),
                }
            }
        }
        d.deserialize_any(CapVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_absurd_rates_are_refused_by_name() {
        let l = Limits { egress_rate: Some(Cap::At(0)), ..Limits::default() };
        assert!(l.validate().unwrap_err().to_string().starts_with("net.egress-rate: 0 would stop"));
        let l = Limits { ingress_pps: Some(Cap::At(MAX_RATE + 1)), ..Limits::default() };
        assert!(l.validate().unwrap_err().to_string().starts_with("net.ingress-pps"));
        let l = Limits { egress_rate: Some(Cap::Max), ..Limits::default() };
        assert!(l.validate().is_ok());
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let old = Limits { egress_rate: Some(Cap::At(5)), new_conns: Some(Cap::At(7)), ..Limits::default() };
        let new = old.merged(&Limits { egress_rate: Some(Cap::Max), ..Limits::default() });
        assert_eq!((new.egress_rate, new.new_conns), (Some(Cap::Max), Some(Cap::At(7))));
    }

    #[test]
    fn json_round_trip() {
        let l: Limits =
            serde_json::from_str(r#"{"egress-rate":1000,"ingress-rate":"max","ingress-mode":"queue"}"#)
                .expect("parses");
        assert_eq!(l.ingress_rate, Some(Cap::Max));
        assert_eq!(
            serde_json::to_string(&l).unwrap(),
            r#"{"egress-rate":1000,"ingress-rate":"max","ingress-mode":"queue"}"#
        );
        assert!(serde_json::from_str::<Limits>(r#"{"egress-rate":"fast"}"#).is_err());
    }
}
