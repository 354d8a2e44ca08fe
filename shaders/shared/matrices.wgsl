// What is the same whatever the size of the matrices that a subgroup multiplies: how their factors become f16, and what becomes of
// results where subgroups are not as the kernel takes them to be.
// Numbers past the largest of f16 count as that, so that no sum of finite ones is infinite or NaN.
const LARGEST_F16: f32 = 65504.0;

// Four factors. `exact`: they are numbers of f16 already, as a tensor that is stored so has them, infinities included.
fn halves(x: vec4<f32>, exact: bool) -> vec4<f16> {
    if (exact) {
        return vec4<f16>(x);
    }
    return vec4<f16>(clamp(x, vec4(-LARGEST_F16), vec4(LARGEST_F16)));
}

fn to_f16(x: vec4<f32>) -> vec4<f16> {
    return halves(x, false);
}

// Whether the workgroup's subgroups are as the kernel was made for. Where a device has several sizes, the pipeline has one of them, which
// is not known before it is compiled.
fn subgroups_are_whole(local: u32, size: u32, count: u32) -> bool {
    if (local == 0u) {
        put_first_word(select(0.0, 1.0, (size == SUBGROUP) & (count == SUBGROUPS)));
    }
    return first_word() != 0.0;
}

// What the outputs are where they are not. Of a number that no compiler knows, for WGSL has no such constant.
fn not_a_number(size: u32) -> f32 {
    return bitcast<f32>(max(size, 0x7fc00000u));
}
