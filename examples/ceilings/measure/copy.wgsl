// The ceiling of memory traffic: one invocation copies one vec4.
const WORKGROUP: u32 = 256u;

@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let at = (id.y * count.x + id.x) * WORKGROUP + invocation;
    if (at < arrayLength(&source)) {
        target_[at] = source[at];
    }
}
