// What is the same whatever the size of the matrices that a subgroup multiplies: how their factors become f16.
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
