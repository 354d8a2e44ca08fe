// Optional output: the entropy of a row's weights in nats, log(sum) - weighted / sum; 0 where no key is visible.
@group(0) @binding(6) var<storage, read_write> entropy: array<f32>; // [batch, q_heads, q_len]

fn store_entropy(batch: u32, head: u32, i: u32, sum: f32, weighted: f32) {
    let at = params.entropy_start + batch * params.entropy_batch + head * params.entropy_head + i * params.entropy_row;
    if (sum == 0.0) {
        entropy[at] = 0.0;
    } else {
        let nats = log(sum) - weighted / sum;
        entropy[at] = nats - min(nats, 0.0); // NaN stays, which max might drop
    }
}
