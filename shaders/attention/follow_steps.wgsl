// When what was summed so far is rescaled: in every step, o together with what the step adds to it.
fn follow_max(new_max: vec4<f32>) -> vec4<f32> {
    return raise_max(new_max);
}
