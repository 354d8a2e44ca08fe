// The keys: the z that queries and keys share, bound as q.
fn load_k(base: u32, chunk: u32) -> vec4<f32> {
    return load_q(base, chunk);
}
