// The keys' gradients, written from the one range of queries there is.
fn finish_dk(batch: u32, kv_head: u32, key: u32, split: u32, c: u32, value: vec4<f32>) {
    store_dk(params.dk_start + batch * params.dk_batch + kv_head * params.dk_head + key * params.dk_row, c, value);
}

fn finish_dv(batch: u32, kv_head: u32, key: u32, split: u32, c: u32, value: vec4<f32>) {
    store_dv(params.dv_start + batch * params.dv_batch + kv_head * params.dv_head + key * params.dv_row, c, value);
}
