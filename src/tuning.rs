//! Choices of kernels that were measured on a device, as data: what [`Context::autotune`](crate::Context) makes, an app
//! stores, and plans look up.

use std::collections::BTreeMap;
use std::fmt;

use crate::dtype::{DType, Storage};
use crate::{Error, Result};

/// What was measured on one device, and won: kernels by classes of calls.
///
/// A plan made in a context [with a tuning](crate::Context::with_tuning) looks its call's class up and takes what stands there, if
/// the tables of this version offer it for that very call; in every other case it takes what it would take without a tuning, and
/// [`Plan::reason`](crate::Plan::reason) says so. Nothing that stands in a tuning can make a result wrong.
///
/// A class is the op, the width of heads, element types, which optional tensors there are, whether a mask cuts keys off, and
/// lengths and counts of heads up to the next power of two.
///
/// With the feature `serde` it can be stored. It belongs to one adapter, one driver and one version of this crate.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Tuning {
    version: String,
    adapter: String,
    backend: String,
    driver: String,
    cases: BTreeMap<String, TunedCase>,
    /// What is named but cannot be planned is an error: while candidates are measured.
    #[cfg_attr(feature = "serde", serde(skip))]
    strict: bool,
}

/// What was measured of one class of calls.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct TunedCase {
    /// The kernel that replaces the default, with its tiles; none where the default stays.
    pub kernel: Option<String>,
    /// Time of a call by the default, in milliseconds: a median.
    pub default_ms: f64,
    /// Time of a call by what is taken, measured in turns with the default.
    pub tuned_ms: f64,
    /// Candidates that were run and gave the default's result, beside the default.
    pub measured: u32,
    /// Candidates that the device refused.
    pub refused: u32,
    /// Candidates whose result was not the default's: bugs of a driver, or of this crate.
    pub wrong: u32,
    /// Candidates that were not tried: the budget left no time, or the same kernel was slow on other terms.
    pub left_out: u32,
}

impl Tuning {
    /// A tuning that has measured nothing yet.
    pub(crate) fn new(info: &wgpu::AdapterInfo) -> Self {
        let driver = [info.driver.as_str(), info.driver_info.as_str()].map(str::trim);
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            adapter: info.name.clone(),
            backend: info.backend.to_string(),
            driver: driver.join(" ").trim().into(),
            cases: BTreeMap::new(),
            strict: false,
        }
    }

    /// What was measured, by class of calls.
    pub fn cases(&self) -> impl Iterator<Item = (&str, &TunedCase)> {
        self.cases.iter().map(|(class, case)| (class.as_str(), case))
    }

    /// A tuning that takes one candidate for one class, to measure it.
    #[cfg(feature = "blocking")]
    pub(crate) fn naming(info: &wgpu::AdapterInfo, class: &str, kernel: &str) -> Self {
        let mut tuning = Self::new(info);
        tuning.insert(class.into(), TunedCase { kernel: Some(kernel.into()), ..TunedCase::default() });
        Self { strict: true, ..tuning }
    }

    #[cfg(feature = "blocking")]
    pub(crate) fn insert(&mut self, class: String, case: TunedCase) {
        // Where there was time for no candidate, what was measured before stands.
        if case.measured > 0 || !self.cases.contains_key(&class) {
            self.cases.insert(class, case);
        }
    }

    /// Whether what it names must be planned: while candidates are measured.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Refuses what was measured elsewhere.
    pub(crate) fn check(&self, info: &wgpu::AdapterInfo) -> Result<()> {
        let own = Self::new(info);
        for (what, got, expected) in [
            ("crate version", &self.version, own.version),
            ("adapter", &self.adapter, own.adapter),
            ("backend", &self.backend, own.backend),
            ("driver", &self.driver, own.driver),
        ] {
            if *got != expected {
                return Err(Error::Tuning { what, expected, got: got.clone() });
            }
        }
        Ok(())
    }

    /// What is to be taken for a call of a class, of all that is on offer, and what is to be said of it.
    pub(crate) fn look_up<C: fmt::Display>(&self, class: &str, offers: impl FnOnce() -> Vec<C>) -> (Option<C>, String) {
        let Some(case) = self.cases.get(class) else { return (None, "not tuned for this class of calls".into()) };
        let Some(name) = &case.kernel else {
            return (None, format!("tuned: {:.3} ms, of {} others none is faster", case.default_ms, case.measured));
        };
        match offers().into_iter().find(|offer| offer.to_string() == *name) {
            None => (None, format!("the tuning names `{name}`, which is not offered for this call")),
            offer => {
                (offer, format!("tuned: {:.3} ms against {:.3} ms of the default", case.tuned_ms, case.default_ms))
            }
        }
    }
}

/// Of an op that has nothing to choose from.
#[derive(Debug)]
pub(crate) enum NoOffer {}

impl fmt::Display for NoOffer {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// The parts of the name of a class of calls, joined by blanks.
pub(crate) struct Class(String);

impl Class {
    pub fn of(op: &str) -> Self {
        Self(op.into())
    }

    /// A number that matters as it is.
    pub fn exactly(self, name: &str, value: u32) -> Self {
        Self(format!("{} {name}={value}", self.0))
    }

    /// A number that matters by its power of two.
    pub fn up_to(self, name: &str, value: u64) -> Self {
        Self(format!("{} {name}<={}", self.0, value.checked_next_power_of_two().unwrap_or(u64::MAX)))
    }

    /// Lengths, and heads of keys: of all the batch, and queries' heads to each.
    pub fn lengths_and_heads(self, [q_len, kv_len]: [u32; 2], [batch, q_heads, kv_heads]: [u32; 3]) -> Self {
        self.up_to("q_len", q_len.into())
            .up_to("kv_len", kv_len.into())
            .up_to("kv_heads", u64::from(batch) * u64::from(kv_heads))
            .up_to("group", u64::from(q_heads / kv_heads.max(1)))
    }

    /// What the call has or is.
    pub fn with(self, name: &str, on: bool) -> Self {
        if on { Self(format!("{} {name}", self.0)) } else { self }
    }

    /// How a tensor is stored, where it is not as f32.
    pub fn stored(self, name: &str, storage: Storage) -> Self {
        if storage == Storage::Plain(DType::F32) { self } else { Self(format!("{} {name}={storage:?}", self.0)) }
    }

    pub fn name(self) -> String {
        self.0
    }
}

/// The names of those on offer that make another choice than the default, and than one before them; those of one kernel together.
#[cfg(feature = "blocking")]
pub(crate) fn distinct<C: fmt::Display, T: PartialEq>(
    offers: impl IntoIterator<Item = C>,
    same_kernel: impl Fn(&C, &C) -> bool,
    choose: impl Fn(Option<&C>) -> Result<T>,
) -> Result<Vec<Vec<String>>> {
    let mut seen = vec![choose(None)?];
    let mut groups: Vec<(C, Vec<String>)> = Vec::new();
    for offer in offers {
        // What the device's limits refuse is no offer.
        let Ok(choice) = choose(Some(&offer)) else { continue };
        if seen.contains(&choice) {
            continue;
        }
        seen.push(choice);
        let name = offer.to_string();
        match groups.iter_mut().find(|(first, _)| same_kernel(first, &offer)) {
            Some((_, names)) => names.push(name),
            None => groups.push((offer, vec![name])),
        }
    }
    Ok(groups.into_iter().map(|(_, names)| names).collect())
}
