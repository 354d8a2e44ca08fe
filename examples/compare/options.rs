//! The command line.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

use crate::decode;
use crate::family;
use crate::harness::stored::Stored;
use crate::harness::variants::{VARIANTS, Variant};
use crate::minilm;
use crate::tier::Tier;

/// What runs if nothing is asked for.
const DEFAULT: &[&str] = &["softmax", "log_n", "squared_relu", "gau", "linear_elu"];

/// Compares attention variants over sequence lengths on this machine: time, throughput, memory, accuracy against an
/// f64 twin, and row entropy; or by their gradients; or by one query over many keys, as in decoding; or the ops of the softmax family over row lengths. Every result is
/// verified before it is timed.
#[derive(Debug, Parser)]
#[command(name = "compare", after_help = variant_table())]
pub struct Options {
    /// Compare the softmax family instead, forward and backward: softmax and its sparse kinds, Gumbel-softmax, ZLPR, margin softmax
    #[arg(long, conflicts_with_all = ["batch", "heads", "kv_heads", "head_dim", "causal", "data", "autotune"])]
    pub family: bool,
    /// Compare decoding instead: one query over n keys, or linear attention's step of one token with a state, both with as many
    /// query heads as key and value heads and with four times as many
    #[arg(long, conflicts_with_all = ["family", "causal", "data", "svg"])]
    pub decode: bool,
    /// Compare training instead: the gradients of q, k and v, or of v, gate, z and maps, beside the forward pass
    #[arg(long, conflicts_with_all = ["family", "decode", "data", "autotune"])]
    pub backward: bool,
    /// Sequence lengths, or row lengths of the family. Default: powers of two, from 64 on a CPU adapter, from 128 on a GPU; in decoding
    /// 4096 and 32768 keys; of the family powers of ten from 100 to a million
    #[arg(long, visible_alias = "lengths", value_name = "N,N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub seq_lens: Vec<u32>,
    /// Variants by name (see below), or `all`. Default: those with a star; in decoding softmax and linear_elu; of the family all
    #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',')]
    pub variants: Vec<String>,
    /// Sequences at once. Default: 1; with minilm its 6 layers
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Query heads. Default: 8, in decoding 8 and 32; with minilm its 12
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub heads: Option<u32>,
    /// Key and value heads, a divisor of the query heads. Default: as many as query heads; in decoding, without --heads, 8
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub kv_heads: Option<u32>,
    /// Width of a head. Default: 64; with minilm its 32
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub head_dim: Option<u32>,
    /// A query sees no later key
    #[arg(long)]
    pub causal: bool,
    /// Where q, k and v come from
    #[arg(long, value_enum, default_value_t = Data::Random)]
    pub data: Data,
    /// What q, k, v, o and everything else of a call is stored as; sums and softmax are f32 in every case
    #[arg(long, value_enum, default_value_t = Stored::F32)]
    pub dtype: Stored,
    /// What of the device kernels may use. Default: what it has, but no cooperative matrices
    #[arg(long, value_enum)]
    pub tier: Option<Tier>,
    /// Take the adapter whose name contains this
    #[arg(long, value_name = "SUBSTRING", default_value = "", hide_default_value = true)]
    pub adapter: String,
    /// Timed samples of each case. Default: about a second's worth, 5 to 30
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: Option<u32>,
    /// Seconds for the whole run; a variant stops before the length that would pass them. First calls, where drivers
    /// compile, are not counted. Default: 60 on a CPU adapter, 120 on a GPU and of gradients, 180 for the family; none where --seq-lens is given
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub budget: Option<f64>,
    /// Measure kernels and tiles first, for so many seconds a case, and show each case that gains from it a second time. Not
    /// counted in the budget. With --report, tuning.json is what an app would load
    #[arg(long, value_name = "SECONDS", value_parser = seconds, num_args = 0..=1, default_missing_value = "10")]
    pub autotune: Option<f64>,
    /// Write report.html, results.json and results.csv there
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Write the figure of time there, by itself
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// In that figure, time relative to this variant's at each length
    #[arg(long, value_name = "NAME", requires = "svg")]
    pub relative_to: Option<String>,
}

/// Where q, k and v come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Data {
    /// Independent numbers from N(0, 1)
    Random,
    /// data/minilm_qkv.safetensors: all-MiniLM-L6-v2 over 512 tokens of text, one layer a batch entry
    Minilm,
}

impl Data {
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Minilm => "minilm",
        }
    }
}

/// Batch, heads, kv_heads and head_dim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub batch: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
}

impl Options {
    /// Refuses what cannot be, before anything is started.
    pub fn check(&self) -> Result<()> {
        let chosen: Vec<&str> = match self.family {
            true => family::chosen(&self.variants)?.into_iter().map(|variant| variant.name).collect(),
            false => self.chosen()?.into_iter().map(|variant| variant.name).collect(),
        };
        if let Some(name) = self.relative_to.as_ref().filter(|name| !chosen.contains(&name.as_str())) {
            bail!("--relative-to: `{name}` is none of the variants that run");
        }
        if self.family {
            if self.tier == Some(Tier::Cooperative) {
                bail!("--tier cooperative: no op of the family has cooperative matrices");
            }
            return Ok(());
        }
        if self.decode && self.seq_lens.contains(&1) {
            bail!("--seq-lens: with --decode, 1 is a query without a key before its own; at least 2");
        }
        self.layouts()?;
        Ok(())
    }

    /// The variants asked for, each once, in the order of the table.
    pub fn chosen(&self) -> Result<Vec<&'static Variant>> {
        for name in &self.variants {
            if name != "all" && !VARIANTS.iter().any(|variant| variant.name == name) {
                let names: Vec<&str> = VARIANTS.iter().map(|variant| variant.name).collect();
                bail!("--variants: there is no variant `{name}`; there are {} and `all`", names.join(", "));
            }
        }
        let default = if self.decode { decode::DEFAULT } else { DEFAULT };
        for variant in VARIANTS.iter().filter(|_| self.backward) {
            if let (Some(reason), true) =
                (variant.without_gradients(), self.variants.iter().any(|name| name == variant.name))
            {
                bail!("--variants: of `{}` {reason}", variant.name);
            }
        }
        for variant in VARIANTS.iter().filter(|variant| self.decode && !variant.decodes()) {
            if self.variants.iter().any(|name| name == variant.name) {
                bail!("--variants: `{}` is of all rows of a sequence, not of the one that --decode has", variant.name);
            }
        }
        let asked = |variant: &&Variant| match self.variants.is_empty() {
            true => default.contains(&variant.name),
            false => self.variants.iter().any(|name| name == variant.name || name == "all"),
        };
        let fits = |variant: &&Variant| {
            (!self.decode || variant.decodes()) && (!self.backward || variant.without_gradients().is_none())
        };
        Ok(VARIANTS.iter().filter(fits).filter(asked).collect())
    }

    /// What every length is run with: one, but in decoding both with grouped heads and without.
    pub fn layouts(&self) -> Result<Vec<Sizes>> {
        let sizes = self.sizes()?;
        if !self.decode || self.heads.is_some() {
            return Ok(vec![sizes]);
        }
        let grouped = Sizes { heads: sizes.heads.saturating_mul(decode::GROUP), ..sizes };
        Ok(vec![sizes, grouped])
    }

    fn sizes(&self) -> Result<Sizes> {
        let [batch, heads, head_dim] = match self.data {
            Data::Random => [1, 8, 64],
            Data::Minilm => [minilm::LAYERS, minilm::HEADS, minilm::HEAD_DIM],
        };
        let heads = self.heads.or(self.kv_heads.filter(|_| self.decode)).unwrap_or(heads);
        let sizes = Sizes {
            batch: self.batch.unwrap_or(batch),
            heads,
            kv_heads: self.kv_heads.unwrap_or(heads),
            head_dim: self.head_dim.unwrap_or(head_dim),
        };
        if !sizes.heads.is_multiple_of(sizes.kv_heads) {
            bail!("--kv-heads: {} does not divide the {} query heads", sizes.kv_heads, sizes.heads);
        }
        if self.data == Data::Minilm {
            minilm::check(sizes, &self.seq_lens)?;
        }
        Ok(sizes)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().map_err(|_| "not a number".to_string())?;
    if f64::is_finite(seconds) && seconds > 0.0 { Ok(seconds) } else { Err("must be above 0".into()) }
}

fn variant_table() -> String {
    let family = family::variants::VARIANTS;
    let names = VARIANTS.iter().map(|variant| variant.name).chain(family.iter().map(|variant| variant.name));
    let width = names.map(str::len).max().unwrap_or(0);
    let mut text =
        "Variants (n: keys that a row sees; d = s: head_dim; sums run over keys; * in the default set):\n".to_string();
    for variant in VARIANTS {
        let mark = if DEFAULT.contains(&variant.name) { "*" } else { " " };
        // Writing to a string does not fail.
        let _ = writeln!(text, " {mark} {:width$}  {}", variant.name, variant.formula);
    }
    text += "\nVariants with --family (x: a row of n numbers; sums run over them):\n";
    for variant in family {
        let _ = writeln!(text, "   {:width$}  {}", variant.name, variant.formula);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &str) -> Result<Options> {
        let options = Options::try_parse_from(["compare"].into_iter().chain(options.split_whitespace()))?;
        options.check()?;
        Ok(options)
    }

    #[test]
    fn a_family_has_its_own_variants_and_no_heads() {
        assert_eq!(
            parsed("--family --lengths 100,64 --dtype bf16 --samples 3").expect("all apply").seq_lens,
            [100, 64]
        );
        assert!(parsed("--family --variants softmax,zlpr_backward --svg a.svg --relative-to softmax").is_ok());
        for wrong in [
            "--batch 2",
            "--heads 4",
            "--kv-heads 4",
            "--head-dim 32",
            "--causal",
            "--data random",
            "--autotune",
            "--tier cooperative",
            "--variants gau",
            "--variants softmax --svg a.svg --relative-to zlpr",
        ] {
            assert!(parsed(&format!("--family {wrong}")).is_err(), "{wrong}");
        }
        assert!(parsed("--variants zlpr").is_err());
    }

    #[test]
    fn decoding_has_grouped_heads_and_not() {
        let heads = |options: &str| -> Vec<[u32; 2]> {
            let layouts = parsed(options).and_then(|options| options.layouts()).expect(options);
            layouts.iter().map(|sizes| [sizes.heads, sizes.kv_heads]).collect()
        };
        assert_eq!(heads("--decode --variants all --autotune"), [[8, 8], [32, 8]]);
        assert_eq!(heads("--decode --kv-heads 3 --seq-lens 2"), [[3, 3], [12, 3]]);
        assert_eq!(heads("--decode --heads 6 --kv-heads 2"), [[6, 2]]);
        for wrong in ["--family", "--causal", "--data random", "--variants gau", "--seq-lens 1,64", "--svg a.svg"] {
            assert!(parsed(&format!("--decode {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn training_has_variants_with_gradients() {
        let names = |options: &str| -> Vec<&str> {
            parsed(options).and_then(|options| options.chosen()).expect(options).iter().map(|v| v.name).collect()
        };
        assert_eq!(names("--backward"), DEFAULT);
        let all = names("--backward --variants all --causal --svg a.svg --report a");
        let without = |variant: &&&str| !all.contains(*variant);
        let of_all: Vec<&str> = VARIANTS.iter().map(|variant| variant.name).collect();
        assert_eq!(of_all.iter().filter(without).collect::<Vec<_>>(), [&"three_dispatches"]);
        for wrong in ["--decode", "--family", "--variants three_dispatches", "--data random"] {
            assert!(parsed(&format!("--backward {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_names_the_starred_run() {
        let names: Vec<&str> =
            parsed("").expect("nothing").chosen().expect("variants").iter().map(|v| v.name).collect();
        assert_eq!(names, DEFAULT);
    }
}
