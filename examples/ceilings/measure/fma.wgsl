// The ceiling of arithmetic: one invocation carries twelve numbers through fused multiply-adds that do not wait for each
// other, twelve being enough to hide the latency of one and few enough for sixteen vector registers.
const WORKGROUP: u32 = 256u;

struct Params {
    factor: f32, // numbers x become factor * x + term, 16 times in an iteration
    term: f32,
    iterations: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>; // one an invocation

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let start = vec4(f32(id.x % 8u)) + vec4(0.0, 1.0, 2.0, 3.0);
    var x = mat3x4(start, start + 4.0, start + 8.0);
    for (var i = 0u; i < params.iterations; i++) {
        x = four_times(four_times(four_times(four_times(x))));
    }
    sums[id.x] = dot(x[0] + x[1] + x[2], vec4(1.0));
}

fn four_times(x: mat3x4<f32>) -> mat3x4<f32> {
    return once(once(once(once(x))));
}

fn once(x: mat3x4<f32>) -> mat3x4<f32> {
    let factor = vec4(params.factor);
    let term = vec4(params.term);
    return mat3x4(fma(x[0], factor, term), fma(x[1], factor, term), fma(x[2], factor, term));
}
