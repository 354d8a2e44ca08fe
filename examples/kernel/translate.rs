//! What naga makes of a kernel's WGSL, for Vulkan, DX12 and Metal, under the crate's own runtime checks and wgpu's own options: bounds
//! checks, and no bound on loops, no check of divisors, no workgroup memory set to zero (`Context::compile`).

use naga::back::{hlsl, msl, spv};
use naga::proc::BoundsCheckPolicy::Restrict;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy, Layouter};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};

pub fn parse(text: &str, granted: Capabilities) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), granted)
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;
    Ok((module, info))
}

pub fn workgroup_bytes(module: &Module) -> Result<u32, String> {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    let shared = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    Ok(shared.map(|(_, variable)| layouter[variable.ty].size).sum())
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

pub fn hlsl(module: &Module, info: &ModuleInfo, native: bool) -> Result<String, String> {
    // The number of workgroups is no built-in of HLSL; wgpu passes it in a register of its own.
    let workgroups = hlsl::BindTarget { space: 255, ..hlsl::BindTarget::default() };
    let options = hlsl::Options {
        shader_model: if native { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V6_0 },
        special_constants_binding: Some(workgroups),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        ..hlsl::Options::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".to_owned())) };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .map_err(|error| format!("HLSL: {error}"))?;
    Ok(text)
}

/// `costly`: with all that naga puts in by default.
pub fn msl(module: &Module, info: &ModuleInfo, costly: bool) -> Result<String, String> {
    let options = msl::Options {
        lang_version: (2, 4),
        bounds_check_policies: BoundsCheckPolicies {
            index: Restrict,
            buffer: Restrict,
            ..BoundsCheckPolicies::default()
        },
        zero_initialize_workgroup_memory: costly,
        force_loop_bounding: costly,
        emit_int_div_checks: costly,
        ..msl::Options::default()
    };
    let pipeline =
        msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".to_owned())), ..Default::default() };
    let (text, _) = msl::write_string(module, info, &options, &pipeline).map_err(|error| format!("MSL: {error}"))?;
    Ok(text)
}
