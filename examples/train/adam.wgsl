// A step of Adam: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1. An invocation owns an element.
struct Step {
    rate: f32,
    rest_1: f32, // 1 - beta_1 to the power of the step's number
    rest_2: f32,
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> moments: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> parameter: array<f32>;

@compute @workgroup_size(64)
fn adam(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at >= arrayLength(&parameter)) {
        return;
    }
    let g = gradient[at];
    let moment = mix(vec2(g, g * g), moments[at], vec2(BETA_1, BETA_2));
    moments[at] = moment;
    parameter[at] -= step.rate * (moment.x / step.rest_1) / (sqrt(moment.y / step.rest_2) + 1e-8);
}
