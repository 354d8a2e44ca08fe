// Optional operand and output: the entropy of the parts' rows, and of the merged ones.
@group(0) @binding(3) var<storage, read> entropy_parts: array<f32>; // [parts, batch, heads, len]
@group(0) @binding(6) var<storage, read_write> entropy: array<f32>; // [batch, heads, len]

fn part_entropy(part: u32, batch: u32, head: u32, i: u32) -> f32 {
    return entropy_parts[params.entropy_parts_start + part * params.entropy_parts_part + batch * params.entropy_parts_batch
        + head * params.entropy_parts_head + i * params.entropy_parts_row];
}

fn entropy_at(batch: u32, head: u32, i: u32) -> u32 {
    return params.entropy_start + batch * params.entropy_batch + head * params.entropy_head + i * params.entropy_row;
}

fn load_entropy(batch: u32, head: u32, i: u32) -> f32 {
    return entropy[entropy_at(batch, head, i)];
}

fn store_entropy(batch: u32, head: u32, i: u32, value: f32) {
    entropy[entropy_at(batch, head, i)] = value;
}
