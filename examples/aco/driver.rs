//! RADV, AMD's Vulkan driver of Mesa, pretending that there is a GPU: it compiles pipelines as on hardware and tells what became of
//! them. Nothing can run there, and wgpu gets no device from it.
#![expect(unsafe_code, reason = "Vulkan as it is: nothing else hands out what a driver's compiler made")]

use std::collections::BTreeMap;
use std::ffi::{CStr, FromBytesUntilNulError};

use anyhow::{Context as _, ensure};
use ash::{khr, vk};

pub struct Driver {
    instance: ash::Instance,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// The family, and the version of Mesa.
    pub name: String,
    pub version: String,
    pub has_matrices: bool,
    // Last, so that the library stays loaded for all else.
    _entry: ash::Entry,
}

/// What the driver tells of a kernel.
pub struct Compiled {
    pub statistics: BTreeMap<String, u64>,
    pub listing: String,
    pub subgroup: u32,
}

fn text(name: Result<&CStr, FromBytesUntilNulError>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Driver {
    pub fn new() -> anyhow::Result<Self> {
        // SAFETY: the loader is that of Vulkan; every structure lives until the call that reads it is over.
        unsafe {
            let entry = ash::Entry::load().context("no Vulkan loader")?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None)?;
            let physical = *instance.enumerate_physical_devices()?.first().context("the driver has no device")?;
            let extensions = instance.enumerate_device_extension_properties(physical)?;
            let has = |name: &CStr| extensions.iter().any(|own| own.extension_name_as_c_str() == Ok(name));
            let has_matrices = has(khr::cooperative_matrix::NAME);

            let mut executables =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
            let (mut v1_1, mut v1_2, mut v1_3) = (
                vk::PhysicalDeviceVulkan11Features::default(),
                vk::PhysicalDeviceVulkan12Features::default(),
                vk::PhysicalDeviceVulkan13Features::default(),
            );
            // wgpu leaves the bounds of buffers to the driver, by this.
            let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
            let mut features = vk::PhysicalDeviceFeatures2::default()
                .push_next(&mut v1_1)
                .push_next(&mut v1_2)
                .push_next(&mut v1_3)
                .push_next(&mut robust);
            instance.get_physical_device_features2(physical, &mut features);
            let features = features.features;
            [v1_1.p_next, v1_2.p_next, v1_3.p_next, robust.p_next] = [std::ptr::null_mut(); 4];

            let mut names =
                vec![khr::pipeline_executable_properties::NAME.as_ptr(), ash::ext::robustness2::NAME.as_ptr()];
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let mut info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_features(&features)
                .push_next(&mut executables)
                .push_next(&mut v1_1)
                .push_next(&mut v1_2)
                .push_next(&mut v1_3)
                .push_next(&mut robust);
            if has_matrices {
                names.push(khr::cooperative_matrix::NAME.as_ptr());
                info = info.push_next(&mut matrices);
            }
            let device = instance.create_device(physical, &info.enabled_extension_names(&names), None)?;

            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(physical, &mut properties);
            // "Null hardware (RADV NAVI31)".
            let name = text(properties.properties.device_name_as_c_str());
            let name = name.split_once('(').map_or(name.as_str(), |(_, name)| name.trim_end_matches(')')).to_owned();
            let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
            let version = text(driver.driver_info_as_c_str());
            Ok(Self { instance, device, executables, name, version, has_matrices, _entry: entry })
        }
    }

    /// Compiles a kernel whose buffers are these, in order: `(binding, whether it is a uniform)`.
    pub fn compile(&self, spirv: &[u32], bindings: &[(u32, bool)]) -> anyhow::Result<Compiled> {
        let binding = |&(binding, uniform): &(u32, bool)| {
            let kind = if uniform { vk::DescriptorType::UNIFORM_BUFFER } else { vk::DescriptorType::STORAGE_BUFFER };
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings: Vec<_> = bindings.iter().map(binding).collect();
        // SAFETY: the module is one that naga validated and wrote; every structure lives until the call that reads it is over,
        // and what is created stays until the end of the process, but for the pipeline, which is read before it goes.
        unsafe {
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = [self.device.create_descriptor_set_layout(&info, None)?];
            let layout =
                self.device.create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&set), None)?;
            let module = self.device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(spirv), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .module(module)
                .name(c"main")
                .stage(vk::ShaderStageFlags::COMPUTE);
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info = [vk::ComputePipelineCreateInfo::default().layout(layout).stage(stage).flags(flags)];
            let pipelines = self.device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            let pipeline = pipelines.map_err(|(_, error)| error)?[0];
            let compiled = self.read(pipeline);
            self.device.destroy_pipeline(pipeline, None);
            self.device.destroy_shader_module(module, None);
            self.device.destroy_pipeline_layout(layout, None);
            self.device.destroy_descriptor_set_layout(set[0], None);
            compiled
        }
    }

    fn read(&self, pipeline: vk::Pipeline) -> anyhow::Result<Compiled> {
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline is alive, was created with the two flags that these calls ask for, and has one executable, as
        // any of a compute shader; buffers are as large as the driver said before.
        unsafe {
            let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
            let executables = self.executables.get_pipeline_executable_properties(&info)?;
            ensure!(executables.len() == 1, "a kernel became {} executables", executables.len());
            let statistics = self.executables.get_pipeline_executable_statistics(&executable)?;
            let numbers =
                statistics.iter().filter(|own| own.format == vk::PipelineExecutableStatisticFormatKHR::UINT64);
            let statistics = numbers.map(|own| (text(own.name_as_c_str()), own.value.u64)).collect();

            let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
            let mut count = 0;
            get(self.device.handle(), &executable, &mut count, std::ptr::null_mut()).result()?;
            let mut forms = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            get(self.device.handle(), &executable, &mut count, forms.as_mut_ptr()).result()?;
            let mut texts: Vec<_> = forms.iter().map(|form| vec![0_u8; form.data_size]).collect();
            for (form, text) in forms.iter_mut().zip(&mut texts) {
                form.p_data = text.as_mut_ptr().cast();
            }
            get(self.device.handle(), &executable, &mut count, forms.as_mut_ptr()).result()?;
            let listing =
                forms.iter().position(|form| text(form.name_as_c_str()) == "Assembly").context("no listing")?;
            let listing = String::from_utf8_lossy(&texts[listing]).into_owned();
            Ok(Compiled { statistics, listing, subgroup: executables[0].subgroup_size })
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // SAFETY: nothing of either is in use any more.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}
