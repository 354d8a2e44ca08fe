//! The kernels of a plan, and their source in the languages that drivers take.

use std::fmt;

use anyhow::{Error, Result, bail};
use naga::proc::BoundsCheckPolicy::{Restrict, Unchecked};
use naga::valid::{Capabilities, ModuleInfo};
use wgpu_attention::Plan;
use wgpu_attention::introspect::{Source, Specialization, Storage};

use super::{languages, translate};

/// What source is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Wgsl,
    SpirV,
    Msl,
    Hlsl,
}

/// A kernel, as its plan has it.
pub struct Kernel {
    specialization: Specialization,
    module: naga::Module,
    info: ModuleInfo,
    dispatches: usize,
}

impl Kernel {
    /// Each kernel of a plan once, in order of first use.
    pub fn of(plan: &Plan) -> Result<Vec<Self>> {
        let mut kernels: Vec<Self> = Vec::new();
        for specialization in plan.specializations() {
            match kernels.iter_mut().find(|kernel| kernel.specialization == *specialization) {
                Some(kernel) => kernel.dispatches += 1,
                None => {
                    // wgpu has compiled it: whatever it needs is granted.
                    let parsed = translate::parse(&specialization.wgsl(), Capabilities::all());
                    let (module, info) = parsed.map_err(Error::msg)?;
                    kernels.push(Self { specialization: specialization.clone(), module, info, dispatches: 1 });
                }
            }
        }
        Ok(kernels)
    }

    /// A module as its language has it; of text, below a comment that names the kernel.
    pub fn source(&self, language: Language) -> Result<Vec<u8>> {
        let Self { specialization, module, info, .. } = self;
        let text = match language {
            Language::Wgsl => self.wgsl(),
            Language::SpirV => {
                let words = translate::spirv(module, info, (1, 6), [Restrict, Unchecked]).map_err(Error::msg)?;
                return Ok(words.into_iter().flat_map(u32::to_le_bytes).collect());
            }
            Language::Msl if self.sources().any(|source| source.path == "shared/matrices_16") => {
                bail!("MSL: Metal has cooperative matrices of 8 x 8 alone")
            }
            Language::Msl => languages::msl(module, info, false).map_err(Error::msg)?,
            // It would panic.
            Language::Hlsl if specialization.uses_matrices() => bail!("HLSL: naga has no cooperative matrices for it"),
            Language::Hlsl => {
                let native = specialization.storage.iter().any(|(_, storage)| *storage == Storage::NativeF16);
                languages::hlsl(module, info, native).map_err(Error::msg)?
            }
        };
        Ok(format!("\n// {specialization}\n{text}").into_bytes())
    }

    /// As it is compiled, but for a comment before the first line of each file, and of what stands in none.
    fn wgsl(&self) -> String {
        let whole = self.specialization.wgsl();
        let mut lines = whole.lines();
        let mut text = String::new();
        for source in self.sources() {
            text += &format!("// ==== shaders/{}.wgsl\n", source.path);
            lines.by_ref().take(source.text.lines().count()).for_each(|line| text.extend([line, "\n"]));
        }
        let conversions = lines.map(|line| format!("{line}\n")).collect::<String>();
        if !conversions.is_empty() {
            text.extend(["// ==== src/storage.rs\n", &conversions]);
        }
        text
    }

    /// The files that it is made of.
    fn sources(&self) -> impl Iterator<Item = &'static Source> {
        let Specialization { kernel, fragments, .. } = &self.specialization;
        std::iter::once(*kernel).chain(fragments.iter().copied())
    }
}

impl fmt::Display for Kernel {
    /// Its label and its files, and what a workgroup takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { specialization, module, dispatches, .. } = self;
        let invocations: u32 = module.entry_points[0].workgroup_size.iter().product();
        let bytes = languages::workgroup_bytes(module).map_err(|_| fmt::Error)?;
        let plural = if *dispatches == 1 { "" } else { "es" };
        writeln!(f, "{specialization}")?;
        writeln!(
            f,
            "            {dispatches} dispatch{plural}; {invocations} invocations and {bytes} bytes of memory a workgroup"
        )?;
        let files: Vec<_> = self.sources().map(|source| source.path).collect();
        write!(f, "            made of {}", files.join(", "))
    }
}
