//! The layers in which knobs are said, and who wins.
//!
//! Weakest first: the container's own configuration (config.json's `linux.resources`, later changed by runc's
//! flags and by `update --resources`; kept elsewhere in the state) < default class < class < annotations <
//! operator. A layer holds values as they were written, checked when they came in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::class::{self, Classes};
use super::table::{self, Knob, Value};
use super::value::Amount;
use crate::error::{Context, Result};
use crate::invalid;

/// Knob names to values as written.
pub type Layer = BTreeMap<String, String>;

/// A class as it was when it was last read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    pub name: String,
    pub knobs: Layer,
}

/// Everything that was said about a container, by who said it. Goes into the state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Layers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_class: Option<Class>,
    /// The class that the annotation `hydra.class` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotated_class: Option<Class>,
    /// The class that the operator named, in place of the annotation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    #[serde(skip_serializing_if = "Layer::is_empty")]
    pub annotations: Layer,
    #[serde(skip_serializing_if = "Layer::is_empty")]
    pub operator: Layer,
    /// The class file, where it isn't the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    DefaultClass(String),
    Class(String),
    Annotation,
    Operator,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::DefaultClass(name) => write!(f, "default class {name}"),
            Source::Class(name) => write!(f, "class {name}"),
            Source::Annotation => f.write_str("annotation"),
            Source::Operator => f.write_str("operator"),
        }
    }
}

/// A value that won.
#[derive(Debug, Clone)]
pub struct Asked {
    pub knob: &'static Knob,
    pub text: String,
    pub value: Value,
    pub from: Source,
}

/// What is asked for in the end, by knob name.
#[derive(Debug, Clone, Default)]
pub struct Effective(pub BTreeMap<String, Asked>);

/// Knobs that say the same thing in two ways: the stronger layer's way wins whole.
const SYNONYMS: [(&str, &str); 5] = [
    ("cpu.weight", "cpu.share"),
    ("cpu.max", "cpu.quota"),
    ("cpu.max", "cpu.period"),
    ("memory.low", "memory.reservation"),
    ("memory.swap", "memory.swap-max"),
];

/// Whether two knobs say the same thing: two names of one setting, or a raw file and a knob that is kept in it.
pub fn same(a: &str, b: &str) -> bool {
    let raw = |raw: &str, knob: &str| {
        let file = raw.strip_prefix(table::RAW);
        file.is_some_and(|file| table::KNOBS.iter().any(|k| k.name == knob && k.writes(file)))
    };
    SYNONYMS.iter().any(|pair| *pair == (a, b) || *pair == (b, a)) || raw(a, b) || raw(b, a)
}

/// Checks knobs that were said together.
pub fn check(layer: &Layer) -> Result<()> {
    for (name, text) in layer {
        table::find(name)?.parse(name, text)?;
        if let Some(other) = layer.keys().find(|other| same(name, other)) {
            invalid!("{name}: '{text}' and {other} say the same thing; allowed: one of the two");
        }
    }
    Ok(())
}

impl Layers {
    /// Nothing was said.
    pub fn is_empty(&self) -> bool {
        self.default_class.is_none()
            && self.named_class().is_none()
            && self.annotations.is_empty()
            && self.operator.is_empty()
    }

    fn named_class(&self) -> Option<&Class> {
        self.class.as_ref().or(self.annotated_class.as_ref())
    }

    /// The class of the container, for tables.
    pub fn class_name(&self) -> Option<&str> {
        self.named_class().or(self.default_class.as_ref()).map(|c| c.name.as_str())
    }

    /// The layers with their names, weakest first.
    fn ordered(&self) -> impl Iterator<Item = (Source, &Layer)> {
        let default = self.default_class.as_ref().map(|c| (Source::DefaultClass(c.name.clone()), &c.knobs));
        let class = self.named_class().map(|c| (Source::Class(c.name.clone()), &c.knobs));
        let own = [(Source::Annotation, &self.annotations), (Source::Operator, &self.operator)];
        default.into_iter().chain(class).chain(own)
    }

    /// What holds, knob by knob, and who said it.
    pub fn effective(&self) -> Result<Effective> {
        let mut all: BTreeMap<String, Asked> = BTreeMap::new();
        for (from, layer) in self.ordered() {
            for (name, text) in layer {
                let knob = table::find(name)?;
                let value = knob.parse(name, text).with_context(|| from.to_string())?;
                all.retain(|other, asked| asked.from >= from || !same(name, other));
                let asked = Asked { knob, text: text.clone(), value, from: from.clone() };
                let weaker = all.insert(name.clone(), asked);
                if name == LIMIT {
                    move_swap(&mut all, weaker, &from);
                }
            }
        }
        Ok(Effective(all))
    }

    fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(class::CONFIG))
    }

    /// Makes `name` the container's class, or takes the operator's class away.
    pub fn set_class(&mut self, name: Option<&str>) -> Result<()> {
        self.class = name.map(|name| self.load(name)).transpose()?;
        Ok(())
    }

    fn load(&self, name: &str) -> Result<Class> {
        load(&class::read(self.config())?, name)
    }

    /// Reads the classes anew. A class that is no longer defined keeps what it said, with an error for the
    /// caller to report.
    pub fn reload(&mut self) -> Result<()> {
        if self.named_class().is_none() && self.default_class.is_none() {
            return Ok(());
        }
        let classes = class::read(self.config())?;
        let all = [&mut self.class, &mut self.annotated_class, &mut self.default_class];
        for class in all.into_iter().flatten() {
            *class = load(&classes, &class.name)?;
        }
        Ok(())
    }

    /// Sets or replaces one `hydra.*` annotation, as `update --annotation` does.
    pub fn annotate(&mut self, key: &str, value: &str) -> Result<()> {
        match key.strip_prefix(PREFIX) {
            Some("class") => {
                self.annotated_class = Some(self.load(value)?);
                Ok(())
            }
            Some(name) => set(&mut self.annotations, name, value),
            None => {
                invalid!("--annotation: '{key}' can't be changed on a running container; allowed: hydra.KNOB")
            }
        }
    }

    /// Sets one of the operator's knobs.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        set(&mut self.operator, name, value)
    }

    /// Takes a knob, or the class, out of the operator's layer again, or with `hydra.` before the name the annotation.
    pub fn unset(&mut self, name: &str) -> Result<()> {
        let gone = match (name.strip_prefix(PREFIX), name) {
            (Some("class"), _) => self.annotated_class.take().is_some(),
            (Some(knob), _) => {
                table::find(knob)?;
                self.annotations.remove(knob).is_some()
            }
            (None, "class") => self.class.take().is_some(),
            (None, knob) => {
                table::find(knob)?;
                self.operator.remove(knob).is_some()
            }
        };
        if gone {
            return Ok(());
        }
        if name.starts_with(PREFIX) {
            invalid!("--unset: the container has no annotation '{name}'");
        }
        let from = match (name, &self.annotated_class, &self.default_class) {
            ("class", Some(_), _) => Some(Source::Annotation.to_string()),
            ("class", None, Some(class)) => Some(Source::DefaultClass(class.name.clone()).to_string()),
            _ => self.effective()?.0.remove(name).map(|asked| asked.from.to_string()),
        };
        let held = from.map_or("nobody set it".into(), |from| format!("it comes from the {from}"));
        invalid!("--unset: '{name}' is not set by the operator: {held}");
    }
}

/// The later word of the same layer replaces whatever says the same thing.
fn set(layer: &mut Layer, name: &str, value: &str) -> Result<()> {
    table::find(name)?.parse(name, value)?;
    layer.retain(|other, _| !same(name, other));
    layer.insert(name.into(), value.into());
    Ok(())
}

const LIMIT: &str = "memory.limit";

/// A stronger memory limit moves a weaker sum of memory and swap along: the room for swap stays. `weaker` is the limit that
/// the sum was said with.
fn move_swap(all: &mut BTreeMap<String, Asked>, weaker: Option<Asked>, from: &Source) {
    let Some(Value::Amount(limit)) = all.get(LIMIT).map(|asked| asked.value.clone()) else { return };
    let Some(sum) = all.get_mut("memory.swap").filter(|sum| sum.from < *from) else { return };
    if let (Some(Value::Amount(before)), Value::Amount(held)) = (weaker.map(|w| w.value), &sum.value) {
        sum.value = Value::Amount(match (before.number(), held.number(), limit.number()) {
            (Some(before), Some(held), Some(limit)) => {
                Amount::N(limit.saturating_add(held.saturating_sub(before)))
            }
            (_, held, Some(_)) => held.map_or(Amount::Max, Amount::N),
            (_, _, None) => Amount::Max,
        });
    }
}

fn load(classes: &Classes, name: &str) -> Result<Class> {
    let knobs = classes.get(name)?;
    check(&knobs).with_context(|| format!("class {name}"))?;
    Ok(Class { name: name.into(), knobs })
}

/// What our annotations begin with.
pub const PREFIX: &str = "hydra.";

/// The knobs among a container's annotations, checked, and the class they name.
pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<(Layer, Option<&str>)> {
    let mut layer = Layer::new();
    let mut class = None;
    // A sorted map has them side by side.
    for (key, value) in annotations.range(PREFIX.to_string()..) {
        match key.strip_prefix(PREFIX) {
            None => break,
            Some("class") => {
                class::check_name(value).context("annotation hydra.class")?;
                class = Some(value.as_str());
            }
            Some(name) => {
                layer.insert(name.into(), value.trim().into());
            }
        }
    }
    check(&layer).context("annotation")?;
    Ok((layer, class))
}

/// Everything said about a container that is to be made.
///
/// `flags` are knob names with values, as the command line gave them; `class` is a name there too. Costs one
/// attempt to open the class file when nothing is said.
pub fn at_create(
    annotations: &BTreeMap<String, String>,
    default_class: Option<&str>,
    flags: &[(String, String)],
    config: Option<&Path>,
) -> Result<Layers> {
    let mut layers = Layers { config: config.map(Path::to_owned), ..Layers::default() };
    let (knobs, annotated) = from_annotations(annotations)?;
    layers.annotations = knobs;
    let mut class = None;
    for (name, value) in flags {
        match name.as_str() {
            "class" => {
                class::check_name(value)?;
                class = Some(value.as_str());
            }
            name => {
                layers.operator.insert(name.into(), value.clone());
            }
        }
    }
    check(&layers.operator)?;
    let mut classes = class::read_main(layers.config())?;
    let default = default_class.map(str::to_owned).or(classes.default.take());
    if class.or(annotated).is_some() || default.is_some() {
        class::read_dropins(&mut classes, layers.config())?;
    }
    layers.annotated_class = annotated.map(|name| load(&classes, name)).transpose()?;
    layers.class = class.map(|name| load(&classes, name)).transpose()?;
    layers.default_class = default.map(|name| load(&classes, &name)).transpose()?;
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(knobs: &[(&str, &str)]) -> Layer {
        knobs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn the_stronger_layer_wins() {
        let mut layers = Layers::default();
        let winner = |layers: &Layers| {
            let asked = layers.effective().unwrap().0.remove("blkio.write-bps").unwrap();
            (asked.text, asked.from)
        };
        layers.default_class = Some(Class { name: "b".into(), knobs: layer(&[("blkio.write-bps", "1")]) });
        assert_eq!(winner(&layers), ("1".into(), Source::DefaultClass("b".into())));
        layers.class = Some(Class { name: "g".into(), knobs: layer(&[("blkio.write-bps", "2")]) });
        assert_eq!(winner(&layers), ("2".into(), Source::Class("g".into())));
        layers.annotate("hydra.blkio.write-bps", "3").unwrap();
        assert_eq!(winner(&layers), ("3".into(), Source::Annotation));
        layers.set("blkio.write-bps", "4").unwrap();
        assert_eq!(winner(&layers), ("4".into(), Source::Operator));
        layers.unset("blkio.write-bps").unwrap();
        assert_eq!(winner(&layers), ("3".into(), Source::Annotation));
        let e = layers.unset("blkio.write-bps").unwrap_err().to_string();
        assert!(e.ends_with("is not set by the operator: it comes from the annotation"), "{e}");
        let json = serde_json::to_string(&layers).unwrap();
        assert_eq!(serde_json::from_str::<Layers>(&json).unwrap(), layers);
    }

    #[test]
    fn two_names_for_one_thing() {
        let mut layers = Layers { annotations: layer(&[("cpu.share", "512")]), ..Layers::default() };
        layers.set("cpu.weight", "50").unwrap();
        let all = layers.effective().unwrap().0;
        assert!(all.contains_key("cpu.weight") && !all.contains_key("cpu.share"));
        // The later word of one layer counts.
        layers.set("cgroup.cpu.weight", "60").unwrap();
        assert!(layers.effective().unwrap().0.contains_key("cgroup.cpu.weight"));
        assert_eq!(layers.operator.len(), 1);
        let both =
            BTreeMap::from([("hydra.cpu.share".into(), "2".into()), ("hydra.cpu.weight".into(), "2".into())]);
        assert!(from_annotations(&both).unwrap_err().to_string().contains("say the same thing"));
    }

    /// A raw file and a knob that is kept in it are one thing: the stronger layer's word wins, whichever it is.
    #[test]
    fn raw_files_and_knobs_are_one() {
        for (knob, value, file, line) in [
            ("memory.limit", "1GiB", "memory.max", "4096"),
            ("memory.limit", "1GiB", "memory.limit_in_bytes", "4096"),
            ("memory.high", "1GiB", "memory.high", "4096"),
            ("pids.limit", "5", "pids.max", "6"),
            ("cpu.max", "50%", "cpu.max", "1000 10000"),
            ("cpu.quota", "5ms", "cpu.max", "1000 10000"),
            ("cpuset.cpus", "0", "cpuset.cpus", "1"),
            ("blkio.write-bps", "8:0=1MB", "io.max", "8:0 wbps=1"),
            ("blkio.total-read-bps", "1MB", "io.max", "8:0 wbps=1"),
            ("hugetlb.limit", "2MB=4MiB", "hugetlb.2MB.max", "0"),
            ("rdma.hca-handles", "mlx=1", "rdma.max", "mlx hca_handle=2"),
        ] {
            let raw = format!("cgroup.{file}");
            let (typed, raw) = ([(knob, value)], [(raw.as_str(), line)]);
            for (weak, strong) in [(typed, raw), (raw, typed)] {
                let layers =
                    Layers { annotations: layer(&weak), operator: layer(&strong), ..Layers::default() };
                let all = layers.effective().unwrap().0;
                assert_eq!(all.keys().collect::<Vec<_>>(), [strong[0].0], "{weak:?} under {strong:?}");
            }
            let both = layer(&[typed[0], raw[0]]);
            let e = check(&both).unwrap_err().to_string();
            assert!(e.contains("say the same thing") && e.contains(knob) && e.contains(raw[0].0), "{e}");
        }
        assert!(!same("memory.high", "cgroup.memory.max") && !same("memory.high", "memory.limit"));
    }

    #[test]
    fn a_stronger_memory_limit_moves_a_weaker_sum() {
        let swap = |class: &[(&str, &str)], limit: &str| {
            let class = Some(Class { name: "g".into(), knobs: layer(class) });
            let layers = Layers { class, operator: layer(&[("memory.limit", limit)]), ..Layers::default() };
            layers.effective().unwrap().0.remove("memory.swap").unwrap().value
        };
        let n = |n| Value::Amount(Amount::N(n));
        // Without swap there is none under a smaller limit either.
        assert_eq!(swap(&[("memory.limit", "8192"), ("memory.swap", "8192")], "4096"), n(4096));
        assert_eq!(swap(&[("memory.limit", "8192"), ("memory.swap", "9000")], "16384"), n(16384 + 808));
        assert_eq!(
            swap(&[("memory.limit", "8192"), ("memory.swap", "9000")], "max"),
            Value::Amount(Amount::Max)
        );
        assert_eq!(
            swap(&[("memory.limit", "8192"), ("memory.swap", "max")], "4096"),
            Value::Amount(Amount::Max)
        );
        assert_eq!(swap(&[("memory.swap", "9000")], "4096"), n(9000));
    }

    #[test]
    fn the_operators_class_and_the_annotations_are_two() {
        let named = |name: &str| Some(Class { name: name.into(), knobs: layer(&[("pids.limit", "1")]) });
        let mut layers = Layers { annotated_class: named("gold"), ..Layers::default() };
        let e = layers.unset("class").unwrap_err().to_string();
        assert_eq!(e, "--unset: 'class' is not set by the operator: it comes from the annotation");
        layers.class = named("silver");
        assert_eq!(layers.class_name(), Some("silver"));
        layers.unset("class").unwrap();
        assert_eq!(layers.class_name(), Some("gold"));
        layers.annotate("hydra.pids.limit", "2").unwrap();
        layers.unset("hydra.pids.limit").unwrap();
        assert_eq!(layers.effective().unwrap().0["pids.limit"].text, "1");
        let e = layers.unset("hydra.pids.limit").unwrap_err().to_string();
        assert_eq!(e, "--unset: the container has no annotation 'hydra.pids.limit'");
        layers.unset("hydra.class").unwrap();
        assert!(layers.is_empty());
    }

    #[test]
    fn annotations() {
        let all = BTreeMap::from([
            ("a".into(), "1".into()),
            ("hydra.class".into(), "gold".into()),
            ("hydra.blkio.read-iops".into(), "2k".into()),
            ("z".into(), "1".into()),
        ]);
        assert_eq!(from_annotations(&all).unwrap(), (layer(&[("blkio.read-iops", "2k")]), Some("gold")));
        let bad = BTreeMap::from([("hydra.colour".into(), "red".into())]);
        assert!(from_annotations(&bad)
            .unwrap_err()
            .to_string()
            .starts_with("annotation: unknown knob colour"));
    }

    #[test]
    fn classes_from_files() {
        let dir = std::env::temp_dir().join(format!("knobs-test-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("classes.d")).unwrap();
        let config = dir.join("hydra.toml");
        std::fs::write(&config, "default-class = \"silver\"\n[class.silver.cpu]\nweight = 50\n").unwrap();
        std::fs::write(dir.join("classes.d/gold.toml"), "[cpu]\nweight = 500\n").unwrap();
        let annotations = BTreeMap::from([("hydra.class".into(), "gold".into())]);
        let mut layers = at_create(&annotations, None, &[], Some(&config)).unwrap();
        assert_eq!(layers.effective().unwrap().0["cpu.weight"].text, "500");
        assert_eq!(layers.default_class.as_ref().unwrap().name, "silver");
        std::fs::write(dir.join("classes.d/gold.toml"), "[cpu]\nweight = 600\n").unwrap();
        layers.reload().unwrap();
        assert_eq!(layers.effective().unwrap().0["cpu.weight"].text, "600");
        let e = at_create(&BTreeMap::new(), Some("lead"), &[], Some(&config)).unwrap_err().to_string();
        assert_eq!(e, "class: 'lead' is not defined; allowed: gold, silver");
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(at_create(&BTreeMap::new(), None, &[], Some(&config)).unwrap().is_empty());
    }
}
