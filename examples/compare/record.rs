//! One measured case, and the files that hold them.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use wgpu_attention::wgpu;

use crate::ceilings::Ceilings;
use crate::harness::stored;
use crate::harness::tensors::Shape;
use crate::harness::verify::Checked;
use crate::table::{bytes, significant};
use crate::tier::Tier;

/// What was measured of one variant at one length.
#[derive(Clone, Debug)]
pub struct Record {
    pub variant: &'static str,
    /// By a kernel that autotune took.
    pub tuned: bool,
    /// Of those, the time relative to the default's.
    pub relative_to_default: Option<f64>,
    pub shape: Shape,
    pub samples: usize,
    pub median_ms: f64,
    pub min_ms: f64,
    pub tflops: f64,
    pub gbps: f64,
    pub workspace_bytes: u64,
    pub tensor_bytes: u64,
    /// In decoding, what a query knows of the keys before it: k and v, or a state that is read and written.
    pub cache_bytes: Option<u64>,
    pub dispatches: usize,
    pub kernel: String,
    pub checked: Checked,
    /// Of a backward pass, the median of the forward pass.
    pub forward_ms: Option<f64>,
    /// Time relative to softmax at this length.
    pub relative: Option<f64>,
    /// Percent of the measured rate of multiply-adds.
    pub of_fma: Option<f64>,
    /// Percent of the measured bandwidth of a copy.
    pub of_copy: Option<f64>,
}

/// Where and on what everything was measured.
#[derive(Clone, Debug)]
pub struct Setting {
    pub adapter: String,
    pub driver: String,
    pub backend: String,
    pub timer: &'static str,
    pub data: &'static str,
    pub tier: Tier,
    /// Measured at the start of the run.
    pub ceilings: Option<Ceilings>,
}

impl Record {
    /// The variant, and by whose choice of kernel it ran.
    pub fn name(&self) -> String {
        match self.relative_to_default {
            Some(ratio) => format!("{}, tuned: {ratio:.2} x", self.variant),
            None => self.variant.into(),
        }
    }

    /// In decoding, 10⁹ bytes of the cache in a second.
    pub fn cache_gbps(&self) -> Option<f64> {
        self.cache_bytes.map(|bytes| bytes as f64 / self.median_ms * 1e-6)
    }

    /// Of a backward pass, its time over that of the forward pass.
    pub fn over_forward(&self) -> Option<f64> {
        self.forward_ms.map(|forward| self.median_ms / forward)
    }

    /// Of those that the run was given, what the call used: not every op has matrices.
    fn tier(&self, given: Tier) -> Tier {
        match given {
            Tier::Cooperative if !self.checked.by_matrices => Tier::Subgroup,
            given => given,
        }
    }
}

impl Setting {
    pub fn new(info: &wgpu::AdapterInfo, timer: &'static str, data: &'static str, tier: Tier) -> Self {
        let driver = [info.driver.as_str(), info.driver_info.as_str()].map(str::trim);
        Self {
            adapter: info.name.clone(),
            driver: driver.iter().filter(|text| !text.is_empty()).copied().collect::<Vec<_>>().join(" "),
            backend: info.backend.to_string(),
            timer,
            data,
            tier,
            ceilings: None,
        }
    }

    /// Where and how, a part of every record.
    pub fn fields(&self) -> [Field; 7] {
        let ceiling = |of: fn(&Ceilings) -> f64| self.ceilings.as_ref().map(of).into();
        [
            ("adapter", self.adapter.as_str().into()),
            ("driver", self.driver.as_str().into()),
            ("backend", self.backend.as_str().into()),
            ("timer", self.timer.into()),
            ("ceiling_copy_gbps", ceiling(|ceilings| ceilings.copy_gbps)),
            ("ceiling_fma_tflops", ceiling(|ceilings| ceilings.fma_tflops)),
            ("ceiling_matmul_tflops", ceiling(|ceilings| ceilings.matmul_tflops)),
        ]
    }

    /// The same in lines, before a table.
    pub fn head(&self) -> [String; 4] {
        let Self { adapter, driver, backend, .. } = self;
        [
            format!("adapter  {adapter} ({backend}; {driver})"),
            format!("tier     {}", self.tier_in_words()),
            format!("timer    {}", self.timer_in_words()),
            format!("ceilings {}", self.ceilings_in_words()),
        ]
    }

    pub fn ceilings_in_words(&self) -> String {
        let Some(Ceilings { copy_gbps, copy_bytes, fma_tflops, matmul_tflops, matmul_size, matmul_kernel }) =
            &self.ceilings
        else {
            return "not measured".into();
        };
        let [m, n, k] = matmul_size;
        format!(
            "copy of {} {} GB/s, f32 multiply-adds {} TFLOP/s, own f32 product {m} x {n} x {k} {} TFLOP/s ({matmul_kernel})",
            bytes(*copy_bytes),
            significant(*copy_gbps),
            significant(*fma_tflops),
            significant(*matmul_tflops),
        )
    }

    pub fn timer_in_words(&self) -> &'static str {
        match self.timer {
            "timestamp" => "GPU timestamps in the pass",
            _ => "wall clock from submit to done: this device has no timestamps",
        }
    }

    pub fn tier_in_words(&self) -> &'static str {
        match self.tier {
            Tier::Portable => "portable: what WebGPU promises on any device",
            Tier::Granted => "granted: what the device has, without subgroup operations",
            Tier::Subgroup => "subgroup: subgroup operations, and f16 where the device has it",
            Tier::Cooperative => "cooperative: matrices with factors in f16, where an op has them; else as subgroup",
        }
    }

    pub fn data_in_words(&self) -> &'static str {
        match self.data {
            "random" => "random normal",
            _ => "q, k, v of all-MiniLM-L6-v2, a layer a batch entry",
        }
    }
}

/// A field of `results.json` and a column of `results.csv`.
pub type Field = (&'static str, Value);

/// Those of a record, in order.
pub fn fields(record: &Record, setting: &Setting) -> Vec<Field> {
    let Shape { batch, heads, kv_heads, len, head_dim, causal, dtype, .. } = record.shape;
    let mut fields: Vec<(&str, Value)> = vec![
        ("variant", record.variant.into()),
        ("seq_len", len.into()),
        ("batch", batch.into()),
        ("heads", heads.into()),
        ("kv_heads", kv_heads.into()),
        ("head_dim", head_dim.into()),
        ("causal", causal.into()),
        ("dtype", stored::name(dtype).into()),
        ("tier", record.tier(setting.tier).name().into()),
        ("data", setting.data.into()),
        ("kernel", record.kernel.as_str().into()),
        ("dispatches", record.dispatches.into()),
        ("tuned", record.tuned.into()),
        ("relative_to_default", record.relative_to_default.into()),
        ("samples", record.samples.into()),
        ("median_ms", record.median_ms.into()),
        ("min_ms", record.min_ms.into()),
        ("relative_to_softmax", record.relative.into()),
        ("tflops", record.tflops.into()),
        ("percent_of_fma", record.of_fma.into()),
        ("gbps", record.gbps.into()),
        ("percent_of_copy", record.of_copy.into()),
        ("workspace_bytes", record.workspace_bytes.into()),
        ("tensor_bytes", record.tensor_bytes.into()),
        ("mean_entropy", record.checked.mean_entropy.into()),
    ];
    if record.shape.is_decoding() {
        fields.push(("q_len", record.shape.q_len.into()));
        fields.push(("cache_bytes", record.cache_bytes.into()));
        fields.push(("cache_gbps", record.cache_gbps().into()));
    }
    if record.forward_ms.is_some() {
        fields.insert(1, ("pass", "backward".into()));
        fields.push(("forward_median_ms", record.forward_ms.into()));
        fields.push(("relative_to_forward", record.over_forward().into()));
    }
    fields.extend(of_check(&record.checked));
    fields.extend(setting.fields());
    fields
}

/// Those of a check.
pub fn of_check(checked: &Checked) -> [Field; 7] {
    let Checked { rows, absolute, relative, .. } = checked;
    [
        ("rows_checked", (*rows).into()),
        ("max_rel_err", relative.max.into()),
        ("max_rel_err_allowed", relative.allowed.into()),
        ("rms_rel_err", relative.rms.into()),
        ("max_abs_err", absolute.max.into()),
        ("max_abs_err_allowed", absolute.allowed.into()),
        ("rms_abs_err", absolute.rms.into()),
    ]
}

/// `results.json`: an array of objects.
pub fn write_json(path: &Path, records: &[Vec<Field>]) -> Result<()> {
    let objects = records.iter().map(|fields| {
        let members = fields.iter();
        let members: Vec<String> = members.map(|(name, value)| format!("{}: {value}", Value::from(*name))).collect();
        format!("  {{{}}}", members.join(", "))
    });
    let objects: Vec<String> = objects.collect();
    let mut file = std::fs::File::create(path)?;
    writeln!(file, "[\n{}\n]", objects.join(",\n"))?;
    Ok(())
}

/// `results.csv`: the same, a row each; empty where there is no number.
pub fn write_csv(path: &Path, records: &[Vec<Field>]) -> Result<()> {
    let mut file = csv::Writer::from_path(path)?;
    for (index, fields) in records.iter().enumerate() {
        if index == 0 {
            file.write_record(fields.iter().map(|(name, _)| name))?;
        }
        file.write_record(fields.iter().map(|(_, value)| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }))?;
    }
    Ok(file.flush()?)
}
