//! What some drivers get wrong, as data: one row a quirk, each with its evidence.

/// llvmpipe (Vulkan as lavapipe, and OpenGL) up to some Mesa before 26.2 ends **all** loops of an invocation after
/// 65 535 iterations in total and reports nothing: a shader that counts to 200 000 stops there on Mesa 22.3.6 and
/// counts right on 26.2. The constant in its source is `LP_MAX_TGSI_LOOP_ITERATIONS`. Between the two versions the
/// cap is assumed.
const LLVMPIPE_LOOP_CAP: u32 = 65_535;
const LLVMPIPE_FIRST_WITHOUT_CAP: (u32, u32) = (26, 2);

/// llvmpipe's compile time grows steeply with the size of a kernel's private arrays: the attention kernel that keeps q
/// and o in two arrays takes 0.4 s, 7 s and 59 s at head_dim 8, 64 and 128 on Mesa 22.3.6, and 0.35 s at any of them on
/// 26.2. Between the two versions it is assumed. The same versions run both sides of a branch, under a mask: attention that rescales o by a
/// branch takes 8 % longer on 22.3.6, and 5 to 9 % less on 26.2.
const LLVMPIPE_FIRST_WITH_FAST_ARRAYS: (u32, u32) = (26, 2);

/// Loop iterations after which the driver silently ends every loop of an invocation.
pub(crate) fn loop_cap(info: &wgpu::AdapterInfo) -> Option<u32> {
    is_llvmpipe_before(info, LLVMPIPE_FIRST_WITHOUT_CAP).then_some(LLVMPIPE_LOOP_CAP)
}

/// Whether large private arrays are to be avoided.
pub(crate) fn slow_arrays(info: &wgpu::AdapterInfo) -> bool {
    is_llvmpipe_before(info, LLVMPIPE_FIRST_WITH_FAST_ARRAYS)
}

/// llvmpipe gathers a vector from a private array that a loop indexes lane by lane, and checks and branches for each number
/// it loads from storage: on Mesa 26.2 they took two thirds of the attention kernel's time.
pub(crate) fn is_llvmpipe(info: &wgpu::AdapterInfo) -> bool {
    info.name.contains("llvmpipe") || info.driver.contains("llvmpipe")
}

fn is_llvmpipe_before(info: &wgpu::AdapterInfo, version: (u32, u32)) -> bool {
    is_llvmpipe(info) && mesa_version(&info.driver_info).is_none_or(|own| own < version)
}

/// Invocations in every subgroup, if that is one number. Of Metal, wgpu 30 tells what any device may have, 4 to 64; those of
/// Apple have 32, by Apple's feature tables. No Mac has run this.
pub(crate) fn subgroup_size(info: &wgpu::AdapterInfo) -> Option<u32> {
    if info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple") {
        return Some(32);
    }
    Some(info.subgroup_min_size).filter(|&least| least == info.subgroup_max_size)
}

/// Whether an invocation has at most 128 registers of 32 bits: past them a compiler puts sums into memory. Intel has 128 of 32 bytes for 8
/// invocations and more, Apple 256 halves, Arm 64; Qualcomm, Imagination and Broadcom tell nothing, and their GPUs are as small. None of them
/// has run the kernels: the tiles for them are judged by the registers that AMD's compiler takes.
pub(crate) fn few_registers(info: &wgpu::AdapterInfo) -> bool {
    const INTEL: u32 = 0x8086;
    const APPLE: u32 = 0x106b;
    const ARM: u32 = 0x13b5;
    const QUALCOMM: u32 = 0x5143;
    const IMAGINATION: u32 = 0x1010;
    const BROADCOM: u32 = 0x14e4;
    // Of Metal, wgpu tells the name alone.
    [INTEL, APPLE, ARM, QUALCOMM, IMAGINATION, BROADCOM].contains(&info.vendor) || info.name.starts_with("Apple")
}

/// llvmpipe with vectors of four lanes lists cooperative matrices but has not the Vulkan feature (Mesa 26.2.6); wgpu 30 goes by the
/// list, and panics when a device is asked for.
#[cfg(feature = "blocking")]
pub(crate) fn lists_matrices_in_vain(info: &wgpu::AdapterInfo) -> bool {
    is_llvmpipe(info) && info.subgroup_max_size < 8
}

/// Whether the adapter runs on CPU cores. OpenGL does not report it: of its drivers wgpu 30 knows llvmpipe and SwiftShader by
/// name, but not softpipe, so names are looked at here too.
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
