//! The kernels of the list of calls, each with what a driver is given and what its uniform holds.

use std::collections::HashSet;

use anyhow::{Context as _, Error, Result, bail, ensure};
use naga::proc::BoundsCheckPolicy::{Restrict, Unchecked};
use naga::valid::Capabilities;
use wgpu_attention::introspect::Specialization;
use wgpu_attention::{Context, DType, Plan};

use super::device::{Assume, Device, Granted};
use super::ops::Call;
use super::translate;

const CALLS: &str = include_str!("calls.txt");

pub struct Kernel {
    /// The call's, and the kernel's file.
    pub name: String,
    /// SPIR-V under the checks that wgpu puts in where the device has VK_EXT_robustness2.
    pub checked: Vec<u32>,
    /// The same without any.
    pub unchecked: Vec<u32>,
    /// Binding numbers, and whether a uniform is bound there.
    pub bindings: Vec<(u32, bool)>,
    /// Of the call's last workgroup, as the first and only one of a dispatch.
    pub params: Vec<u32>,
    pub invocations: u32,
    pub uses_matrices: bool,
}

/// Those of all calls whose name contains `only`.
pub fn kernels(only: &str) -> Result<Vec<Kernel>> {
    let mut seen = HashSet::new();
    let mut kernels = Vec::new();
    let devices = ["portable", "subgroups", "32 KiB", "few registers", "matrices"].map(|name| (name, context(name)));
    for line in CALLS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<_> = line.split(" | ").collect();
        let [name, op, config, sizes, stored, device] = fields[..] else { bail!("calls.txt: six fields, not {line}") };
        let context = devices.iter().find(|(own, _)| *own == device).map(|(_, context)| context.as_ref());
        let Some(Ok(context)) = context else { bail!("calls.txt: no device is called {device}, or there is none") };
        let dtype = match stored {
            "f32" => DType::F32,
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            _ => bail!("calls.txt: {stored} is no type"),
        };
        let call = Call::new(op, config, sizes).with_context(|| name.to_owned())?;
        let plan = call.plan(context, dtype);
        let plan = plan.with_context(|| format!("{name}: {op} {} {}", call.config, call.shapes))?;
        let own = of(&plan, name, &mut seen)?;
        kernels.extend(own.into_iter().filter(|kernel| kernel.name.contains(only)));
    }
    ensure!(!kernels.is_empty(), "no call's name contains {only:?}");
    Ok(kernels)
}

fn context(name: &str) -> Result<Context> {
    let (subgroup, kib) = match name {
        "portable" => (None, 16),
        "32 KiB" => (Some("32..64"), 32),
        "matrices" => (Some("32..64"), 64),
        _ => (Some("32..64"), 16),
    };
    let granted = Granted {
        subgroup: subgroup.map(str::parse).transpose()?,
        workgroup_kib: Some(kib),
        matrices: name == "matrices",
        few_registers: name == "few registers",
    };
    Ok(Device::assumed(Assume::Gpu, &granted)?.context)
}

/// Those of a plan that none had before.
fn of(plan: &Plan, call: &str, seen: &mut HashSet<Specialization>) -> Result<Vec<Kernel>> {
    let (mut kernels, mut paths) = (Vec::new(), Vec::new());
    let dispatches: Vec<_> = plan.specializations().zip(plan.numbers()).collect();
    for &(specialization, _) in &dispatches {
        if !seen.insert(specialization.clone()) {
            continue;
        }
        let (module, info) = translate::parse(&specialization.wgsl(), Capabilities::all()).map_err(Error::msg)?;
        let spirv = |checks| translate::spirv(&module, &info, (1, 6), checks).map_err(Error::msg);
        let interface = specialization.interface();
        let uniform = std::iter::once((0, true));
        // Of several dispatches, the last has the last workgroup.
        let last = dispatches.iter().rev().find(|(own, _)| *own == specialization);
        let mut params = last.map_or(Vec::new(), |(_, numbers)| numbers.to_vec());
        let place = |name: &str| interface.params.iter().position(|(own, _)| own == name);
        if let [Some(first), Some(end)] = ["first_workgroup", "end_workgroup"].map(place) {
            params[first] = params[end] - 1;
        }
        let path = specialization.kernel.path;
        paths.push(path);
        let number = match paths.iter().filter(|own| **own == path).count() {
            1 => String::new(),
            number => format!(" ({number})"),
        };
        kernels.push(Kernel {
            name: format!("{call}: {path}{number}"),
            checked: spirv([Restrict, Unchecked])?,
            unchecked: spirv([Unchecked, Unchecked])?,
            bindings: uniform.chain(interface.bindings.iter().map(|(binding, _)| (*binding, false))).collect(),
            params,
            invocations: module.entry_points[0].workgroup_size.iter().product(),
            uses_matrices: specialization.uses_matrices(),
        });
    }
    Ok(kernels)
}
