//! Every specialization that a plan can pick, looked at without a GPU: valid, portable, and declared so that the host fills it by name.
#![allow(clippy::print_stderr, reason = "what is left out is counted")]

#[path = "shaders/divisions.rs"]
mod divisions;
#[path = "../examples/kernel/languages.rs"]
mod languages;
#[path = "shaders/plans.rs"]
mod plans;
#[path = "../examples/kernel/translate.rs"]
mod translate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use naga::proc::BoundsCheckPolicy::{Restrict, Unchecked};
use naga::valid::{Capabilities, ModuleInfo};
use naga::{AddressSpace, Module, TypeInner};
use wgpu_attention::introspect::{Constant, Interface, Scalar, Specialization, Storage};
use wgpu_attention::op::{Kind, Op};

/// What a default device grants, whatever it runs on.
const STORAGE_BINDINGS: usize = 8;
const WORKGROUP_BYTES: u32 = 16384;
/// What those of `shared/tile.wgsl` may take, on devices that grant more; a default device gets none such.
const LARGE_WORKGROUP_BYTES: u32 = 32768;
/// What kernels with cooperative matrices may take, likewise.
const MATRICES_WORKGROUP_BYTES: u32 = 49152;
const INVOCATIONS: u32 = 256;

/// What every op lists.
fn listed() -> Vec<Specialization> {
    macro_rules! listed {
        ($($op:ident: $_Op:ident($_Config:ident, $_Shapes:ident),)*) => {
            [$(wgpu_attention::$op::specializations()),*].concat()
        };
    }
    wgpu_attention::for_all_ops!(listed)
}

/// What every op lists, and whatever else shows two parts together that plans combine.
fn specializations() -> Vec<Specialization> {
    let mut all = listed();
    let listed: BTreeSet<_> = all.iter().map(|own| own.kernel.path).collect();
    let beyond = plans::beyond(&all);
    let unlisted = beyond.iter().find(|specialization| !listed.contains(specialization.kernel.path));
    assert!(unlisted.is_none(), "no op lists the kernel of {unlisted:?}");
    all.extend(beyond);
    // Each type in which operands may be stored, in turn over a sample: conversions do not depend on the flags.
    let stored = sample(&all, 8).into_iter().step_by(4).enumerate().map(|(turn, index)| stored(&all[index], turn));
    let stored: Vec<_> = stored.filter(|specialization| !specialization.storage.is_empty()).collect();
    all.extend(stored);
    all
}

/// What kernels call operands that are floats: by their rows, but for those that stand for several of them.
fn floats() -> Vec<&'static str> {
    macro_rules! operands {
        ($($op:ident: $Op:ident($_Config:ident, $_Shapes:ident),)*) => {
            [$(<wgpu_attention::$Op as Op>::operands()),*].concat()
        };
    }
    let all = wgpu_attention::for_all_ops!(operands);
    let names = all.iter().filter(|row| row.kind == Kind::Float).map(|row| row.name);
    let names: BTreeSet<_> = names.chain(["query_gamma", "query_beta", "key_gamma", "key_beta"]).collect();
    names.into_iter().collect()
}

/// Its floats in 16 bits.
fn stored(specialization: &Specialization, turn: usize) -> Specialization {
    let text = specialization.wgsl();
    let storage = floats().into_iter().filter_map(|name| {
        let declared = |line: &&str| line.contains("var<storage") && line.contains(&format!("> {name}: array<"));
        let line = text.lines().find(declared)?;
        let written = line.contains("read_write");
        let fours = line.contains("vec4") || line.contains("Elem") && text.contains("alias Elem = vec4");
        // What is written lies in words, or one by one where rows do not begin with one.
        Some((
            name,
            match turn % 3 {
                0 => Storage::PackedF16,
                1 if !(fours && written) => Storage::NativeF16,
                1 => Storage::PackedF16,
                _ => Storage::PackedBF16,
            },
        ))
    });
    // Keys in the workspace are f32. A kernel for states in 16 bits is listed with them.
    let given: Vec<_> = specialization.storage.iter().map(|(name, _)| *name).collect();
    let workspace = specialization.fragments.iter().any(|source| source.path == "linear_attention/k_workspace");
    let storage: Vec<_> = storage.filter(|(name, _)| !(given.contains(name) || workspace && *name == "k")).collect();
    specialization.clone().stored(storage)
}

/// Calls `work` with every item and its index, on all cores.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    let on_one_core = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            work(index, item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(on_one_core);
        }
    });
}

#[test]
fn every_specialization_is_valid_and_portable() {
    let all = specializations();
    let failures = Mutex::new(Vec::new());
    // Per kernel, the fewest storage bindings of any specialization: what it needs with every optional operand off.
    let leanest = Mutex::new(BTreeMap::new());
    in_parallel(&all, |_, specialization| match check(specialization) {
        Ok(bindings) => {
            let mut leanest = leanest.lock().expect("no thread panicked");
            let least = leanest.entry(specialization.kernel.path).or_insert(bindings);
            *least = bindings.min(*least);
        }
        Err(message) => {
            failures.lock().expect("no thread panicked").push(format!("{specialization}: {message}"));
        }
    });

    let with_matrices = all.iter().filter(|specialization| specialization.uses_matrices());
    let (count, of_8) = (with_matrices.clone().count(), with_matrices.filter(|own| is_metals(own)).count());
    eprintln!("{count} of {} specializations multiply matrices: none is shown to HLSL, {of_8} to MSL", all.len());
    let failures = failures.into_inner().expect("no thread panicked");
    let shown = failures.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n\n");
    assert!(failures.is_empty(), "{} of {} specializations fail; the first:\n{shown}", failures.len(), all.len());
    let mut greedy = leanest.into_inner().expect("no thread panicked");
    greedy.retain(|_, bindings| *bindings > STORAGE_BINDINGS);
    assert!(greedy.is_empty(), "kernels that no default device runs, by storage bindings: {greedy:?}");
}

#[test]
fn every_shader_file_is_used() {
    let listed = listed();
    let converted = (0..3).map(|turn| stored(&listed[0], turn));
    let used: BTreeSet<String> = converted
        .chain(listed.iter().cloned())
        .flat_map(|specialization| std::iter::once(specialization.kernel).chain(specialization.fragments))
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

/// Whether it takes the one optional feature, as fragments say by their names.
fn uses_subgroups(specialization: &Specialization) -> bool {
    specialization.fragments.iter().any(|source| source.path.ends_with("_subgroup"))
}

/// Whether it takes the device's own f16.
fn native(specialization: &Specialization) -> bool {
    specialization.storage.iter().any(|(_, storage)| *storage == Storage::NativeF16)
}

/// Of cooperative matrices, naga writes none in HLSL, and Metal has those of 8 x 8 alone.
fn is_metals(specialization: &Specialization) -> bool {
    specialization.fragments.iter().any(|source| source.path == "shared/matrices_8")
}

fn parse(specialization: &Specialization, text: &str) -> Result<(Module, ModuleInfo), String> {
    // Every device but OpenGL's oldest takes apart words of two f16.
    let mut granted = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    granted.set(Capabilities::SUBGROUP, uses_subgroups(specialization) || specialization.uses_matrices());
    granted.set(Capabilities::SHADER_FLOAT16, specialization.uses_matrices() || native(specialization));
    granted.set(Capabilities::COOPERATIVE_MATRIX, specialization.uses_matrices());
    translate::parse(text, granted)
}

/// The number of storage bindings, or what is wrong.
fn check(specialization: &Specialization) -> Result<usize, String> {
    let text = specialization.wgsl();
    let (module, info) = parse(specialization, &text)?;
    ensure(module.overrides.is_empty(), "declares an override")?;
    let matrices = specialization.uses_matrices();
    let optional = text
        .lines()
        .skip(usize::from(matrices || native(specialization)))
        .find(|line| line.starts_with("enable ") || line.starts_with("requires "));
    ensure(optional.is_none(), format_args!("needs an optional feature: {optional:?}"))?;

    let [main] = &module.entry_points[..] else {
        return Err(format!("has {} entry points", module.entry_points.len()));
    };
    ensure(main.name == "main", format_args!("has the entry point `{}`, not `main`", main.name))?;
    let invocations: u32 = main.workgroup_size.iter().product();
    ensure(invocations <= INVOCATIONS, format_args!("has {invocations} invocations in a workgroup"))?;
    let bytes = languages::workgroup_bytes(&module)?;
    let large = specialization.fragments.iter().any(|source| source.path == "shared/tile");
    let granted = match (matrices, large) {
        (true, _) => MATRICES_WORKGROUP_BYTES,
        (false, true) => LARGE_WORKGROUP_BYTES,
        (false, false) => WORKGROUP_BYTES,
    };
    ensure(bytes <= granted, format_args!("has {bytes} bytes of workgroup memory"))?;

    let interface = specialization.interface();
    check_params(&module, &interface)?;
    check_bindings(&module, &interface)?;
    divisions::check(&module, &info, &interface.divisors)?;
    translate::spirv(&module, &info, (1, 6), [Restrict, Unchecked])?;
    if !matrices {
        languages::hlsl(&module, &info, native(specialization))?;
    }
    if !matrices || is_metals(specialization) {
        let found = costs(&languages::msl(&module, &info, false)?);
        ensure(found.is_empty(), format_args!("naga puts in: {found:?}"))?;
    }
    Ok(module.global_variables.iter().filter(|(_, variable)| is_storage(variable.space)).count())
}

#[test]
fn a_default_device_gets_no_more_workgroup_memory_than_it_grants() {
    let picked = plans::picked_on(&plans::device(true, None));
    let mut tiles = 0;
    for specialization in &picked {
        let (module, _) = parse(specialization, &specialization.wgsl()).expect("valid WGSL");
        let bytes = languages::workgroup_bytes(&module).expect("a layout");
        assert!(bytes <= WORKGROUP_BYTES, "{specialization}: {bytes} bytes");
        tiles += u32::from(bytes > WORKGROUP_BYTES / 2);
    }
    assert!(tiles > 0, "some use most of it");
}

/// The uniform as naga has it against what the host fills by name.
fn check_params(module: &Module, interface: &Interface) -> Result<(), String> {
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
    let scalar = |member: &naga::StructMember| match module.types[member.ty].inner {
        TypeInner::Scalar(naga::Scalar::U32) => Some(Scalar::U32),
        TypeInner::Scalar(naga::Scalar::I32) => Some(Scalar::I32),
        TypeInner::Scalar(naga::Scalar::F32) => Some(Scalar::F32),
        _ => None,
    };
    let in_wgsl = members.iter().map(|member| (member.name.clone(), member.offset, scalar(member)));
    let filled = (0..).zip(&interface.params).map(|(at, (name, scalar))| (Some(name.clone()), 4 * at, Some(*scalar)));
    let (in_wgsl, filled): (Vec<_>, Vec<_>) = (in_wgsl.collect(), filled.collect());
    let differ = in_wgsl.iter().zip(&filled).find(|(wgsl, host)| wgsl != host);
    ensure(differ.is_none(), format_args!("Params: (WGSL, host) differ: {differ:?}"))?;
    let [wgsl, host] = [in_wgsl.len(), filled.len()];
    ensure(wgsl == host, format_args!("Params: {wgsl} fields in WGSL, {host} filled"))?;
    ensure(*span as usize == 4 * host, format_args!("Params: {span} bytes in WGSL, {} filled", 4 * host))
}

/// The storage buffers as naga has them against what the host binds by name.
fn check_bindings(module: &Module, interface: &Interface) -> Result<(), String> {
    let storage = module.global_variables.iter().map(|(_, variable)| variable).filter(|v| is_storage(v.space));
    let in_wgsl = storage.map(|variable| (variable.binding.map_or(0, |at| at.binding), variable.name.clone()));
    let bound = interface.bindings.iter().map(|(binding, name)| (*binding, Some(name.clone())));
    let (in_wgsl, bound): (BTreeSet<_>, BTreeSet<_>) = (in_wgsl.collect(), bound.collect());
    ensure(in_wgsl == bound, format_args!("has the buffers {in_wgsl:?}, of which are bound {bound:?}"))?;
    ensure(bound.len() == interface.bindings.len(), "has a buffer twice")
}

fn is_storage(space: AddressSpace) -> bool {
    matches!(space, AddressSpace::Storage { .. })
}

/// What naga can put into a kernel that costs more than all else there, by how its MSL tells it.
const COSTS: [(&str, &str); 4] = [
    ("loop_bound", "a bound on a loop"),
    ("__local_invocation_index", "workgroup memory set to zero by one invocation"),
    ("naga_div", "a check of a divisor"),
    ("naga_mod", "a check of a divisor"),
];

fn costs(msl: &str) -> Vec<&'static str> {
    COSTS.iter().filter(|(sign, _)| msl.contains(sign)).map(|&(_, cost)| cost).collect()
}

#[test]
fn what_naga_may_put_in_is_found() {
    let text = "var<workgroup> tile: array<f32, 64>;
        @group(0) @binding(0) var<storage, read_write> o: array<f32>;
        @compute @workgroup_size(64) fn main(@builtin(workgroup_id) at: vec3<u32>) {
            for (var i = 0u; i < 64u; i++) { tile[i] = f32(64u / at.x % at.y); }
            o[at.x] = tile[at.y];
        }";
    let (module, info) = translate::parse(text, Capabilities::empty()).expect("valid WGSL");
    let write = |costly| languages::msl(&module, &info, costly).expect("MSL");
    assert_eq!(costs(&write(true)), COSTS.map(|(_, cost)| cost));
    assert_eq!(costs(&write(false)), [""; 0]);
}

/// Of the specializations that differ only in flags and in the operands they take, how many DXC compiles: it needs a
/// quarter of a second for one, ten times what Tint or spirv-val do.
const SAMPLED: usize = 2;

/// Writes every specialization into the folder `SHADERS_TO`: WGSL for Tint, SPIR-V, of a sample also an older SPIR-V and
/// HLSL, and `labels.txt`.
#[test]
#[ignore = "scripts/compilers runs it, for the compilers that look at the files"]
fn write_every_specialization() {
    let folder = std::env::var_os("SHADERS_TO").expect("SHADERS_TO names a folder");
    let folder = Path::new(&folder);
    let mut all = specializations();
    let mut seen = BTreeSet::new();
    all.retain(|specialization| seen.insert(specialization.wgsl()));
    let sampled = sample(&all, SAMPLED);

    in_parallel(&all, |index, specialization| {
        let write = |extension, bytes: &[u8]| {
            let path = folder.join(format!("{index:05}.{extension}"));
            std::fs::write(path, bytes).expect("SHADERS_TO can be written to");
        };
        let text = specialization.wgsl();
        // WGSL asks for it, and naga does not take it yet.
        let enable = if uses_subgroups(specialization) { "enable subgroups;" } else { "" };
        // Tint and DXC know no cooperative matrices: scripts/compilers says how many kernels it leaves out for that.
        if !specialization.uses_matrices() {
            write("wgsl", format!("{enable}{text}").as_bytes());
        }
        let (module, info) = parse(specialization, &text).expect("the other tests pass");
        let spirv = |version, buffer| {
            translate::spirv(&module, &info, version, [Restrict, buffer]).expect("the other tests pass")
        };
        let newest = if specialization.uses_matrices() { "matrices.spv" } else { "1.6.spv" };
        write(newest, bytemuck::cast_slice(&spirv((1, 6), Unchecked)));
        if sampled.contains(&index) && !specialization.uses_matrices() {
            write("1.3.spv", bytemuck::cast_slice(&spirv((1, 3), Restrict)));
            write(
                "hlsl",
                languages::hlsl(&module, &info, native(specialization)).expect("the other tests pass").as_bytes(),
            );
        }
    });

    let labels = all.iter().enumerate().map(|(index, specialization)| {
        let fragments: Vec<_> = specialization.fragments.iter().map(|source| source.path).collect();
        format!("{index:05} {specialization} + {}\n", fragments.join(" + "))
    });
    std::fs::write(folder.join("labels.txt"), labels.collect::<String>()).expect("SHADERS_TO can be written to");
}

/// Of every kernel at every size, at most so many combinations of flags and operands, spread over all of them.
fn sample(all: &[Specialization], most: usize) -> BTreeSet<usize> {
    let mut alike: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, Specialization { kernel, constants, .. }) in all.iter().enumerate() {
        let sizes: Vec<_> = constants.iter().filter(|(_, value)| !matches!(value, Constant::Bool(_))).collect();
        alike.entry((kernel.path, format!("{sizes:?}"))).or_default().push(index);
    }
    let mut sampled = BTreeSet::new();
    for indices in alike.values() {
        let count = indices.len().min(most);
        sampled.extend((0..count).map(|i| indices[i * indices.len() / count]));
    }
    sampled
}

fn ensure(holds: bool, message: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message.to_string()) }
}
