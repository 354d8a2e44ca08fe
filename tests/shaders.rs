//! Every specialization that a plan can pick, looked at without a GPU: valid, portable, and declared as in Rust.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use naga::back::{hlsl, msl, spv};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, TypeInner};
use wgpu_attention::introspect::{ParamsLayout, Specialization};
use wgpu_attention::{attention, gated_attention, linear_attention, matmul};

/// What a default device grants, whatever it runs on.
const STORAGE_BINDINGS: usize = 8;
const WORKGROUP_BYTES: u32 = 16384;
const INVOCATIONS: u32 = 256;

/// Of every op.
fn specializations() -> Vec<(Specialization, ParamsLayout)> {
    [
        attention::specializations(),
        gated_attention::specializations(),
        linear_attention::specializations(),
        matmul::specializations(),
    ]
    .concat()
}

#[test]
fn every_specialization_is_valid_and_portable() {
    let all = specializations();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    // Per kernel, the fewest storage bindings of any specialization: what it needs with every optional operand off.
    let leanest = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some((specialization, params)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            match check(specialization, params) {
                Ok(bindings) => {
                    let mut leanest = leanest.lock().expect("no thread panicked");
                    let least = leanest.entry(specialization.kernel.path).or_insert(bindings);
                    *least = bindings.min(*least);
                }
                Err(message) => {
                    failures.lock().expect("no thread panicked").push(format!("{specialization}: {message}"));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });

    let failures = failures.into_inner().expect("no thread panicked");
    let shown = failures.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n\n");
    assert!(failures.is_empty(), "{} of {} specializations fail; the first:\n{shown}", failures.len(), all.len());
    let mut greedy = leanest.into_inner().expect("no thread panicked");
    greedy.retain(|_, bindings| *bindings > STORAGE_BINDINGS);
    assert!(greedy.is_empty(), "kernels that no default device runs, by storage bindings: {greedy:?}");
}

#[test]
fn every_shader_file_is_used() {
    let used: BTreeSet<String> = specializations()
        .iter()
        .flat_map(|(specialization, _)| std::iter::once(specialization.kernel).chain(specialization.fragments.clone()))
        .map(|source| source.path.to_owned())
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let entries = |path: &Path| std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files: BTreeSet<String> = entries(&root)
        .flat_map(|folder| entries(&folder).collect::<Vec<_>>())
        .map(|file| {
            let below = file.strip_prefix(&root).expect("a file below shaders/").with_extension("");
            below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
        })
        .collect();
    let unused: Vec<_> = files.difference(&used).collect();
    assert!(unused.is_empty(), "under shaders/, but in no specialization: {unused:?}");
}

/// The number of storage bindings, or what is wrong.
fn check(specialization: &Specialization, params: &ParamsLayout) -> Result<usize, String> {
    let text = specialization.wgsl();
    let module = naga::front::wgsl::parse_str(&text).map_err(|error| error.emit_to_string(&text))?;
    // The one optional feature, of fragments that say so by their name.
    let subgroups = specialization.fragments.iter().any(|source| source.path.ends_with("_subgroup"));
    let granted = if subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() };
    let info = Validator::new(ValidationFlags::all(), granted)
        .validate(&module)
        .map_err(|error| error.emit_to_string(&text))?;
    ensure(module.overrides.is_empty(), "declares an override")?;
    let optional = text.lines().find(|line| line.starts_with("enable ") || line.starts_with("requires "));
    ensure(optional.is_none(), format_args!("needs an optional feature: {optional:?}"))?;

    let [main] = &module.entry_points[..] else {
        return Err(format!("has {} entry points", module.entry_points.len()));
    };
    ensure(main.name == "main", format_args!("has the entry point `{}`, not `main`", main.name))?;
    let invocations: u32 = main.workgroup_size.iter().product();
    ensure(invocations <= INVOCATIONS, format_args!("has {invocations} invocations in a workgroup"))?;
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    let shared = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, variable)| layouter[variable.ty].size).sum();
    ensure(bytes <= WORKGROUP_BYTES, format_args!("has {bytes} bytes of workgroup memory"))?;

    check_params(&module, params)?;
    check_writers(&module, &info)?;
    let is_storage = |space: AddressSpace| matches!(space, AddressSpace::Storage { .. });
    Ok(module.global_variables.iter().filter(|(_, variable)| is_storage(variable.space)).count())
}

/// The uniform of the WGSL against the struct of the Rust side.
fn check_params(module: &Module, params: &ParamsLayout) -> Result<(), String> {
    let uniforms: Vec<_> = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::Uniform).collect();
    let [(_, uniform)] = uniforms[..] else {
        return Err(format!("has {} uniforms", uniforms.len()));
    };
    let place = uniform.binding.map(|binding| (binding.group, binding.binding));
    ensure(place == Some((0, 0)), format_args!("has its uniform at {place:?}"))?;
    let ty = &module.types[uniform.ty];
    ensure(ty.name.as_deref() == Some("Params"), format_args!("has a uniform of type {:?}", ty.name))?;
    let TypeInner::Struct { members, span } = &ty.inner else {
        return Err("has a uniform that is no struct".to_owned());
    };
    let wgsl: Vec<_> = members.iter().map(|m| (m.name.as_deref().unwrap_or_default(), m.offset as usize)).collect();
    let differ = wgsl.iter().zip(params.fields).find(|(wgsl, rust)| wgsl != rust);
    ensure(differ.is_none(), format_args!("Params: (WGSL, Rust) differ: {differ:?}"))?;
    let [in_wgsl, in_rust] = [wgsl.len(), params.fields.len()];
    ensure(in_wgsl == in_rust, format_args!("Params: {in_wgsl} fields in WGSL, {in_rust} in Rust"))?;
    ensure(*span as usize == params.size, format_args!("Params: {span} bytes in WGSL, {} in Rust", params.size))
}

/// Naga writes it for Vulkan, DX12 and Metal.
fn check_writers(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    spv::write_vec(module, info, &spv::Options::default(), None).map_err(|error| format!("SPIR-V: {error}"))?;
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..hlsl::Options::default() };
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut String::new(), &options, &pipeline)
        .write(module, info, None)
        .map_err(|error| format!("HLSL: {error}"))?;
    let options = msl::Options { lang_version: (2, 4), ..msl::Options::default() };
    msl::write_string(module, info, &options, &msl::PipelineOptions::default())
        .map_err(|error| format!("MSL: {error}"))?;
    Ok(())
}

fn ensure(holds: bool, message: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message.to_string()) }
}
