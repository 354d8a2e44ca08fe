//! What some drivers get wrong, as data: one row a quirk, each with its evidence.

/// llvmpipe (Vulkan as lavapipe, and OpenGL) up to some Mesa before 26.2 ends **all** loops of an invocation after
/// 65 535 iterations in total and reports nothing: a shader that counts to 200 000 stops there on Mesa 22.3.6 and
/// counts right on 26.2. The constant in its source is `LP_MAX_TGSI_LOOP_ITERATIONS`. Between the two versions the
/// cap is assumed.
const LLVMPIPE_LOOP_CAP: u32 = 65_535;
const LLVMPIPE_FIRST_WITHOUT_CAP: (u32, u32) = (26, 2);

/// Loop iterations after which the driver silently ends every loop of an invocation.
pub(crate) fn loop_cap(info: &wgpu::AdapterInfo) -> Option<u32> {
    let llvmpipe = info.name.contains("llvmpipe") || info.driver.contains("llvmpipe");
    let fixed = mesa_version(&info.driver_info).is_some_and(|version| version >= LLVMPIPE_FIRST_WITHOUT_CAP);
    (llvmpipe && !fixed).then_some(LLVMPIPE_LOOP_CAP)
}

/// Whether the adapter runs on CPU cores; OpenGL does not report it, so software drivers are known by name.
pub(crate) fn is_software(info: &wgpu::AdapterInfo) -> bool {
    let name = info.name.to_lowercase();
    info.device_type == wgpu::DeviceType::Cpu
        || ["llvmpipe", "swiftshader", "softpipe", "basic render driver"].iter().any(|known| name.contains(known))
}

/// `(major, minor)` out of a text such as `Mesa 22.3.6 (LLVM 15.0.6)`.
fn mesa_version(driver_info: &str) -> Option<(u32, u32)> {
    let (_, version) = driver_info.split_once("Mesa ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::mesa_version;

    #[test]
    fn mesa_versions_are_read_from_the_driver_info() {
        assert_eq!(mesa_version("Mesa 22.3.6 (LLVM 15.0.6)"), Some((22, 3)));
        assert_eq!(mesa_version("4.5 (Core Profile) Mesa 26.2.0-1"), Some((26, 2)));
        assert_eq!(mesa_version("NVIDIA 580.1"), None);
    }
}
