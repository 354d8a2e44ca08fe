// The two products of an attention by matrices that a subgroup multiplies, and how they share workgroup memory.
//
// Each of SUBGROUPS subgroups owns OWN_ROWS rows of a tile: their q (queries_held.wgsl, queries_shared.wgsl), and o in matrices of f32.
// A step: fetch its values and the next step's keys; scores out of their matrices to workgroup memory, for only there is it known which
// number stands where; barrier; bring what was fetched, and weights in f16 by WIDTH invocations to a row; barrier; add the values.
// Values lie transposed, keys side by side, so that what an invocation has of any matrix lies together. Rows are 8 halves longer than
// they need be, to lie in different banks; arrays are nested, so that a compiler sees that matrices start at multiples of 16 bytes.
// o is in units of e to the row_max; row_max follows the largest score only when that is more than GROWTH above it, so that o is
// seldom rescaled, which takes it through workgroup memory, and no weight exceeds 2^8. The kernel says what the factors are:
// `query_chunk`, `key_chunk` and `value_chunk` are four dims of a row, by where it starts.
// Workgroup memory: 2 * (KEYS * K_STRIDE + V_DIMS * V_STRIDE + ROWS * P_STRIDE) + 4 * (ROWS * S_STRIDE + 4) bytes.
const WORKGROUP: u32 = SUBGROUP * SUBGROUPS;
const ROWS: u32 = OWN_ROWS * SUBGROUPS;
const WIDTH: u32 = SUBGROUP / OWN_ROWS; // invocations that share a row
const OWN_KEYS: u32 = KEYS / WIDTH; // of an invocation in a step, side by side
const OWN_CHUNKS: u32 = OWN_KEYS / 4u;
const ROW_MATRICES: u32 = OWN_ROWS / SIZE;
const KEY_MATRICES: u32 = KEYS / SIZE;
const HEAD_MATRICES: u32 = (4u * HEAD_CHUNKS + SIZE - 1u) / SIZE;
const V_MATRICES: u32 = (4u * V_CHUNKS + SIZE - 1u) / SIZE;
const V_PANELS: u32 = (V_MATRICES + KEY_MATRICES - 1u) / KEY_MATRICES; // of KEYS dims: as many as a row has scores
const Q_CHUNKS: u32 = HEAD_MATRICES * SIZE / 4u; // with those that are 0
const Q_EIGHTS: u32 = Q_CHUNKS / 2u;
const V_DIMS: u32 = V_MATRICES * SIZE;
const K_STRIDE: u32 = 4u * Q_CHUNKS + 8u;
const V_STRIDE: u32 = KEYS + 8u;
const S_STRIDE: u32 = KEYS + 4u;
const P_STRIDE: u32 = KEYS + 8u;
// What an invocation brings at once: eight dims of a key, or four dims of VALUE_KEYS values; of each so many times.
const KEY_BLOCKS: u32 = KEYS * Q_EIGHTS;
const VALUE_GROUPS: u32 = KEYS / VALUE_KEYS;
const VALUES_NEAR: u32 = SIZE / 4u * VALUE_GROUPS;
const VALUE_BLOCKS: u32 = V_DIMS / 4u * VALUE_GROUPS;
const KEY_PARTS: u32 = (KEY_BLOCKS + WORKGROUP - 1u) / WORKGROUP;
const VALUE_PARTS: u32 = (VALUE_BLOCKS + WORKGROUP - 1u) / WORKGROUP;
const GROWTH: f32 = 8.0 * UNIT / LOG2_E;
// The score of a key that a row does not see: so far below where a row's maximum starts, which no score is below, that it weighs 0.
const HIDDEN: f32 = 1.25 * LOWEST * UNIT;
const_assert SUBGROUP % OWN_ROWS == 0u && OWN_ROWS % SIZE == 0u && KEYS % SIZE == 0u && KEYS % (4u * WIDTH) == 0u;
const_assert VALUE_KEYS == 2u || VALUE_KEYS == 4u;

// A row of scores, and one of weights, by whose they are.
struct ScoreRow {
    owner: array<array<array<f32, 4>, OWN_CHUNKS>, WIDTH>, // [x, chunk, key]; or KEYS dims of o
    apart: array<f32, 4>,
}

struct WeightRow {
    owner: array<array<array<f16, 4>, OWN_CHUNKS>, WIDTH>, // [x, chunk, key]; or KEYS dims of q
    apart: array<f16, 8>,
}

var<workgroup> s_tile: array<array<ScoreRow, OWN_ROWS>, SUBGROUPS>;
var<workgroup> p_tile: array<array<WeightRow, OWN_ROWS>, SUBGROUPS>;
var<workgroup> k_tile: array<array<array<f16, 8>, K_STRIDE / 8u>, KEYS>; // [key, dim]
var<workgroup> v_tile: array<array<array<array<f16, VALUE_KEYS>, V_STRIDE / VALUE_KEYS>, 4>, V_DIMS / 4u>; // [dim, key]
// One past the keys of the last step in which some maximum grew. An array, as its neighbours are best aligned to 16 bytes.
var<workgroup> grown: array<atomic<u32>, 4>;

var<private> invocation: u32;
var<private> own: u32; // subgroup
var<private> row: u32; // of the subgroup's
var<private> x: u32; // along WIDTH
var<private> key_at: vec2<u32>; // what of a step's keys and values it brings first
var<private> value_at: vec2<u32>;
var<private> row_max: f32;
var<private> first_j: u32; // of the walk
var<private> o_sums: array<array<Sums, V_MATRICES>, ROW_MATRICES>;
var<private> next_keys: array<array<KeyFour, 2>, KEY_PARTS>;
var<private> next_values: array<array<ValueFour, VALUE_KEYS>, VALUE_PARTS>;

fn take_place(local: u32, subgroup: u32, lane: u32) {
    invocation = local;
    own = subgroup;
    row = lane / WIDTH;
    x = lane % WIDTH;
    key_at = vec2(local % Q_EIGHTS, local / Q_EIGHTS);
    value_at = vec2(local / VALUES_NEAR * (SIZE / 4u) + local % (SIZE / 4u), local / (SIZE / 4u) % VALUE_GROUPS);
    row_max = LOWEST * UNIT;
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var c = 0u; c < V_MATRICES; c++) { // unroll
            o_sums[m][c] = Sums();
        }
    }
}

// A word of workgroup memory for what the invocations ask of each other before the first step.
fn first_word() -> f32 {
    return workgroupUniformLoad(&s_tile[0][0].owner[0][0][0]);
}

fn put_first_word(word: f32) {
    s_tile[0][0].owner[0][0][0] = word;
}

// Before the first step: q, and the first keys to workgroup memory.
fn start_walk(walk: Walk, q_base: u32, k_base: u32) {
    if (invocation == 0u) {
        atomicStore(&grown[0], 0u);
    }
    bring_queries(q_base);
    if (walk.steps > 0) {
        first_j = u32(walk.begin);
        for (var part = 0u; part < KEY_PARTS; part++) { // unroll if AHEAD
            put_keys(part, fetch_keys(part, first_j, u32(walk.end) - 1u, k_base));
        }
        workgroupBarrier();
    }
}

// Four dims of this invocation's row of q, in f16.
fn query_halves(q_base: u32, c: u32) -> vec4<f16> {
    if (c < HEAD_CHUNKS) {
        return halves(query_chunk(q_base, c), Q_F16);
    }
    return vec4<f16>();
}

// Scores of a step's keys from j on: q kT.
fn score_keys(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    if (AHEAD) {
        for (var part = 0u; part < VALUE_PARTS; part++) { // unroll if AHEAD
            next_values[part] = fetch_values(part, j, last, v_base);
        }
        for (var part = 0u; part < KEY_PARTS; part++) { // unroll if AHEAD
            next_keys[part] = fetch_keys(part, j + KEYS, last, k_base);
        }
    }
    multiply_keys();
    workgroupBarrier();
    for (var part = 0u; part < VALUE_PARTS; part++) { // unroll if AHEAD
        if (AHEAD) {
            put_values(part, next_values[part], edge);
        } else {
            put_values(part, fetch_values(part, j, last, v_base), edge);
        }
    }
    for (var part = 0u; part < KEY_PARTS; part++) { // unroll if AHEAD
        if (AHEAD) {
            put_keys(part, next_keys[part]);
        } else {
            put_keys(part, fetch_keys(part, j + KEYS, last, k_base));
        }
    }
}

// Of this invocation's fours of keys in a step, i: the first's place among them, their scores, and where their weights go.
fn own_key(i: u32) -> u32 {
    return x * OWN_KEYS + 4u * i;
}

fn scores_of(i: u32) -> vec4<f32> {
    var four: vec4<f32>;
    for (var d = 0u; d < 4u; d++) { // unroll
        four[d] = s_tile[own][row].owner[x][i][d];
    }
    return four;
}

fn put_weights(i: u32, p: vec4<f32>) {
    put_four(i, vec4<f16>(p));
}

fn put_four(i: u32, four: vec4<f16>) {
    for (var d = 0u; d < 4u; d++) { // unroll
        p_tile[own][row].owner[x][i][d] = four[d];
    }
}

// By how much row_max changes, downwards, where the largest score of the row is far above it.
fn follow_maximum(largest: vec4<f32>, j: u32) -> f32 {
    var new_max = max(max(largest.x, largest.y), max(largest.z, largest.w));
    for (var distance = 1u; distance < WIDTH; distance *= 2u) {
        new_max = max(new_max, subgroupShuffleXor(new_max, distance));
    }
    let grew = new_max > row_max + GROWTH;
    let step_down = select(0.0, row_max - new_max, grew);
    row_max = select(row_max, new_max, grew);
    if (grew && j != first_j) { // before that o is 0, whatever its unit
        atomicStore(&grown[0], j + KEYS);
    }
    return step_down;
}

// What the invocations of a row have summed each for itself.
fn sum_of_row(own_sum: f32) -> f32 {
    var sum = own_sum;
    for (var distance = 1u; distance < WIDTH; distance *= 2u) {
        sum += subgroupShuffleXor(sum, distance);
    }
    return sum;
}

// o = shrink * o + weights v, once all have left their weights.
fn add_values(shrink: f32, j: u32) {
    workgroupBarrier();
    if (subgroupBroadcastFirst(atomicLoad(&grown[0])) == j + KEYS) {
        rescale(shrink);
    }
    multiply_values();
}

// The scores of the subgroup's rows, to workgroup memory.
fn multiply_keys() {
    var scores: array<array<Sums, KEY_MATRICES>, ROW_MATRICES>;
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            scores[m][n] = Sums();
        }
    }
    for (var d = 0u; d < HEAD_MATRICES; d++) { // unroll if HELD
        var queries: array<Left, ROW_MATRICES>;
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            queries[m] = query_matrix(m, d);
        }
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            // A key is a column.
            let keys = coopLoad<Right>(&k_tile[n * SIZE][d * SIZE / 8u][0], K_STRIDE);
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                scores[m][n] = coopMultiplyAdd(queries[m], keys, scores[m][n]);
            }
        }
    }
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            store_scores(m, n, scores[m][n]);
        }
    }
}

fn multiply_values() {
    for (var n = 0u; n < KEY_MATRICES; n++) { // unroll if UNROLL_VALUES
        var weights: array<Left, ROW_MATRICES>;
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            weights[m] = load_weights(m, n);
        }
        for (var c = 0u; c < V_MATRICES; c++) { // unroll
            // A dim is a column.
            let values = coopLoad<Right>(&v_tile[c * SIZE / 4u][0][n * SIZE / VALUE_KEYS][0], V_STRIDE);
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                o_sums[m][c] = coopMultiplyAdd(weights[m], values, o_sums[m][c]);
            }
        }
    }
}

// Matrix m down and n across of the subgroup's weights, and of its scores.
fn load_weights(m: u32, n: u32) -> Left {
    return coopLoadT<Left>(&p_tile[own][m * SIZE].owner[n * SIZE / OWN_KEYS][n * SIZE % OWN_KEYS / 4u][0], P_STRIDE);
}

fn load_scores(m: u32, n: u32) -> Sums {
    return coopLoadT<Sums>(&s_tile[own][m * SIZE].owner[n * SIZE / OWN_KEYS][n * SIZE % OWN_KEYS / 4u][0], S_STRIDE);
}

fn store_scores(m: u32, n: u32, scores: Sums) {
    coopStoreT(scores, &s_tile[own][m * SIZE].owner[n * SIZE / OWN_KEYS][n * SIZE % OWN_KEYS / 4u][0], S_STRIDE);
}

// KEYS dims of the subgroup's rows of o to where the scores were, once all have done with what is there: this invocation's are
// `scores_of`, chunks from `o_chunk` on.
fn put_o_sums(panel: u32) {
    workgroupBarrier();
    for (var c = 0u; c < V_MATRICES; c++) { // unroll
        if (c / KEY_MATRICES == panel) {
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                store_scores(m, c % KEY_MATRICES, o_sums[m][c]);
            }
        }
    }
    workgroupBarrier();
}

fn o_chunk(panel: u32) -> u32 {
    return panel * KEYS / 4u + x * OWN_CHUNKS;
}

fn rescale(shrink: f32) {
    for (var panel = 0u; panel < V_PANELS; panel++) {
        put_o_sums(panel);
        for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll
            for (var d = 0u; d < 4u; d++) { // unroll
                s_tile[own][row].owner[x][i][d] *= shrink;
            }
        }
        workgroupBarrier();
        for (var c = 0u; c < V_MATRICES; c++) { // unroll
            if (c / KEY_MATRICES == panel) {
                for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                    o_sums[m][c] = load_scores(m, c % KEY_MATRICES);
                }
            }
        }
    }
    workgroupBarrier();
}

// Eight dims of one of a step's keys from position j on, none past `last`; dims past the row's end are 0.
fn fetch_keys(part: u32, j: u32, last: u32, k_base: u32) -> array<KeyFour, 2> {
    let place = key_place(part);
    let base = k_base + min(j + place.y, last) * params.k_row;
    var eight: array<KeyFour, 2>;
    for (var h = 0u; h < 2u; h++) { // unroll
        let c = 2u * place.x + h;
        if (Q_CHUNKS == HEAD_CHUNKS || c < HEAD_CHUNKS) {
            eight[h] = KeyFour(key_chunk(base, c));
        }
    }
    return eight;
}

// Eight dims (x) of which key (y) this invocation brings: neighbours what lies side by side in memory.
fn key_place(part: u32) -> vec2<u32> {
    if (WORKGROUP % Q_EIGHTS == 0u) {
        return vec2(key_at.x, key_at.y + part * (WORKGROUP / Q_EIGHTS));
    }
    let i = part * WORKGROUP + invocation;
    return vec2(i % Q_EIGHTS, i / Q_EIGHTS);
}

fn put_keys(part: u32, eight: array<KeyFour, 2>) {
    let place = key_place(part);
    if (KEY_BLOCKS % WORKGROUP == 0u || part * WORKGROUP + invocation < KEY_BLOCKS) {
        for (var h = 0u; h < 2u; h++) { // unroll
            let four = halves(vec4<f32>(eight[h]), K_F16);
            for (var d = 0u; d < 4u; d++) { // unroll
                k_tile[place.y][place.x][4u * h + d] = four[d];
            }
        }
    }
}

// Chunk (x) of which keys (y, of VALUE_KEYS each): neighbours bring SIZE / 4 chunks side by side, which lie in few banks, of as many keys
// as there are.
fn value_place(part: u32) -> vec2<u32> {
    if (WORKGROUP % VALUES_NEAR == 0u) {
        return vec2(value_at.x + part * (WORKGROUP / VALUES_NEAR) * (SIZE / 4u), value_at.y);
    }
    let i = part * WORKGROUP + invocation;
    return vec2(i / VALUES_NEAR * (SIZE / 4u) + i % (SIZE / 4u), i / (SIZE / 4u) % VALUE_GROUPS);
}

// Four dims of VALUE_KEYS of a step's values from position j on, none past `last`; dims past the row's end are 0.
fn fetch_values(part: u32, j: u32, last: u32, v_base: u32) -> array<ValueFour, VALUE_KEYS> {
    let place = value_place(part);
    var values: array<ValueFour, VALUE_KEYS>;
    for (var key = 0u; key < VALUE_KEYS; key++) { // unroll
        if (V_DIMS == 4u * V_CHUNKS && VALUE_BLOCKS % WORKGROUP == 0u || place.x < V_CHUNKS) {
            let base = v_base + min(j + VALUE_KEYS * place.y + key, last) * params.v_row;
            values[key] = ValueFour(value_chunk(base, place.x));
        }
    }
    return values;
}

// A value that a row may not see may be NaN or infinite, and 0 times that would leak: where there is an edge, NaN counts as 0.
fn put_values(part: u32, values: array<ValueFour, VALUE_KEYS>, edge: bool) {
    var own_values = values;
    if (edge) {
        for (var key = 0u; key < VALUE_KEYS; key++) { // unroll
            let four = vec4<f32>(values[key]);
            let bits = bitcast<vec4<u32>>(four) & vec4(0x7fffffffu);
            own_values[key] = ValueFour(select(four, vec4(0.0), bits > vec4(0x7f800000u)));
            if (V_F16) {
                own_values[key] = ValueFour(to_f16(vec4<f32>(own_values[key])));
            }
        }
    }
    let place = value_place(part);
    var halves_of: array<vec4<f16>, VALUE_KEYS>;
    for (var key = 0u; key < VALUE_KEYS; key++) { // unroll
        halves_of[key] = halves(vec4<f32>(own_values[key]), V_F16);
    }
    if (VALUE_BLOCKS % WORKGROUP == 0u || part * WORKGROUP + invocation < VALUE_BLOCKS) {
        for (var d = 0u; d < 4u; d++) { // unroll
            for (var key = 0u; key < VALUE_KEYS; key++) { // unroll
                v_tile[place.x][d][place.y][key] = halves_of[key][d];
            }
        }
    }
}
