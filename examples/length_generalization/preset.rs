//! How large, how long, how often.

use clap::ValueEnum;

use crate::model::Size;
use crate::tasks::Positions;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// A minute: whether it runs
    Smoke,
    /// Half an hour on two cores: one seed, four models, and the control
    Cpu,
    /// Everything: eight models, three seeds, both kinds of positions, and the control
    Full,
    /// The same of models that are larger and trained longer, for a GPU
    Large,
}

pub struct Plan {
    pub kinds: &'static [&'static str],
    pub seeds: u64,
    pub positions: &'static [Positions],
    pub text: Run,
    pub control: Run,
}

/// Training and evaluation of one task.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The vocabulary is the task's.
    pub size: Size,
    /// Tokens of a sequence in training.
    pub len: u32,
    pub batch: u32,
    pub steps: u32,
    pub rate: f32,
    /// Sequences that are judged at each length.
    pub windows: u32,
}

/// What a length is of that of training.
pub const LENGTHS: [(u32, u32); 6] = [(1, 4), (1, 2), (1, 1), (2, 1), (4, 1), (8, 1)];

const FOUR: &[&str] = &["relu2-n", "relu2-fixed", "gau-softmax", "gau-softmax-log-n"];
const ALL: &[&str] =
    &["relu2-n", "relu2-fixed", "relu2-sum", "gau-softmax", "gau-softmax-log-n", "softmax", "softmax-log-n", "linear"];

impl Preset {
    pub fn plan(self) -> Plan {
        let size = |dim, units, key_dim, heads| Size { vocabulary: 0, dim, units, key_dim, heads };
        let small = size(64, 4, 32, 4);
        match self {
            Self::Smoke => {
                let run = Run { size: size(32, 2, 16, 2), len: 32, batch: 4, steps: 30, rate: 1e-2, windows: 4 };
                Plan { kinds: FOUR, seeds: 1, positions: &[Positions::Plain], text: run, control: run }
            }
            Self::Cpu => Plan {
                kinds: FOUR,
                seeds: 1,
                positions: &[Positions::Plain],
                text: Run { size: small, len: 128, batch: 8, steps: 800, rate: 3e-3, windows: 64 },
                control: Run { size: small, len: 32, batch: 32, steps: 400, rate: 3e-3, windows: 128 },
            },
            Self::Full => Plan {
                kinds: ALL,
                seeds: 3,
                positions: &[Positions::Plain, Positions::NtkMixed],
                text: Run { size: small, len: 128, batch: 8, steps: 1500, rate: 3e-3, windows: 128 },
                control: Run { size: small, len: 32, batch: 32, steps: 1000, rate: 3e-3, windows: 256 },
            },
            Self::Large => Plan {
                kinds: ALL,
                seeds: 3,
                positions: &[Positions::Plain, Positions::NtkMixed],
                text: Run { size: size(256, 12, 64, 8), len: 256, batch: 32, steps: 4000, rate: 1e-3, windows: 128 },
                control: Run { size: size(128, 8, 64, 8), len: 32, batch: 64, steps: 2000, rate: 2e-3, windows: 256 },
            },
        }
    }
}
