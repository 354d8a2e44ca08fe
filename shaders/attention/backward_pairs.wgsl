// The gradients of pairs of query and key, whatever walks them.
// What backward_rows.wgsl has left of each row.
@group(0) @binding(13) var<storage, read> facts: array<vec4<u32>>; // [rows]: lse, delta, scale, dentropy (see dentropy_of), as bits of f32; then lengths

// The score of a key that a row does not see: below every score, and from each by a finite difference.
const HIDDEN: f32 = 1.25 * LOWEST;

// Of four pairs, each of a row of its own or all of one.
struct Facts {
    lse: vec4<f32>,
    delta: vec4<f32>,
    scale: vec4<f32>,
    dentropy: vec4<f32>,
}

fn facts_of(rows: Rows) -> Facts {
    let at = (rows.batch * params.q_heads + rows.head) * params.q_len + rows.row;
    let own = transpose(mat4x4(facts_at(at.x), facts_at(at.y), facts_at(at.z), facts_at(at.w)));
    return Facts(own[0], own[1], own[2], own[3]);
}

// Of a row without a key, whatever its scale is counts for nothing.
fn facts_at(row: u32) -> vec4<f32> {
    let words = facts[row];
    let own = bitcast<vec4<f32>>(words);
    return vec4(own.xy, select(own.z, 0.0, own.x == NO_KEY), dentropy_of(words.w));
}

struct Pairs {
    p: vec4<f32>, // weights
    ds: vec4<f32>, // gradients of what the scale makes of q k; of BIAS, of what that and the bias make
}

// From x = q k and dp = dout v, of keys j. `edge`: some row may not see its key; its weight and gradient are exactly 0.
fn pairs_of(x: vec4<f32>, dp: vec4<f32>, own: Facts, rows: Rows, j: vec4<u32>, edge: bool) -> Pairs {
    var s = own.scale * x;
    if (SOFTCAP) {
        s = softcap(s);
    }
    var scored = Scored(s, vec4(true));
    if (edge) {
        scored = bias_and_mask_of(rows, s, j);
    }
    let log_p = scored.s - own.lse;
    var p = exp(log_p);
    var ds = dp - own.delta;
    if (ENTROPY) {
        ds -= own.dentropy * log_p;
    }
    ds *= p;
    if (edge) {
        p = select(vec4(0.0), p, scored.see);
    }
    if (edge || ENTROPY) {
        // A weight of 0 times a logarithm, or times what is hidden and NaN.
        ds = select(ds, vec4(0.0), p == vec4(0.0));
    }
    if (edge && HAS_BIAS) {
        ds = select(ds, vec4(0.0), scored.s == vec4(LOWEST));
    }
    if (SOFTCAP && !BIAS) {
        let t = s / params.softcap;
        ds *= (1.0 - t) * (1.0 + t);
    }
    return Pairs(p, ds);
}
