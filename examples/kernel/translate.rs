//! A kernel's WGSL as naga reads it, and what it makes of it for Vulkan, under the crate's own runtime checks and wgpu's own options: bounds
//! checks, and no bound on loops, no check of divisors, no workgroup memory set to zero (`Context::compile`).

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};

pub fn parse(text: &str, granted: Capabilities) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), granted)
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;
    Ok((module, info))
}

/// `index`: of arrays in workgroup and private memory, which wgpu checks unless told otherwise. `buffer`: with VK_EXT_robustness2 the
/// driver checks the bounds of buffers, without it naga does.
pub fn spirv(
    module: &Module,
    info: &ModuleInfo,
    lang_version: (u8, u8),
    [index, buffer]: [BoundsCheckPolicy; 2],
) -> Result<Vec<u32>, String> {
    let options = spv::Options {
        lang_version,
        flags: spv::WriterFlags::DEBUG,
        bounds_check_policies: BoundsCheckPolicies { index, buffer, ..BoundsCheckPolicies::default() },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_owned() };
    spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|error| format!("SPIR-V: {error}"))
}
