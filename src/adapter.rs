//! The classes of adapters for which the tables of kernels have rows.

use std::fmt;

use crate::context::Capabilities;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adapter {
    Gpu,
    /// A software driver, with no habits that are known.
    Cpu,
    Llvmpipe,
    /// llvmpipe that takes minutes to compile a kernel with large private arrays.
    SlowArrays,
}

impl Adapter {
    pub fn of(capabilities: &Capabilities) -> Self {
        match capabilities {
            Capabilities { is_cpu: false, .. } => Self::Gpu,
            Capabilities { slow_arrays: true, .. } => Self::SlowArrays,
            Capabilities { is_llvmpipe: true, .. } => Self::Llvmpipe,
            _ => Self::Cpu,
        }
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "a GPU",
            Self::Cpu => "a CPU",
            Self::Llvmpipe => "llvmpipe",
            Self::SlowArrays => "llvmpipe that compiles large arrays slowly",
        })
    }
}
