//! What naga makes of a kernel for DX12 and Metal, as `translate` does for Vulkan, and the workgroup memory that it lays out.

use naga::back::{hlsl, msl};
use naga::proc::BoundsCheckPolicy::Restrict;
use naga::proc::{BoundsCheckPolicies, Layouter};
use naga::valid::ModuleInfo;
use naga::{AddressSpace, Module, ShaderStage};

pub fn workgroup_bytes(module: &Module) -> Result<u32, String> {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    let shared = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    Ok(shared.map(|(_, variable)| layouter[variable.ty].size).sum())
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
