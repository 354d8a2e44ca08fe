// The products of a tile of gradients by matrices that a subgroup multiplies: x = q k and dp = dout v of a step's pairs, and
// sums += weights terms. Rows are queries and items keys, or the other way round; `first` is of q and k, `second` of dout and v.
//
// Each of SUBGROUPS subgroups owns OWN_ROWS rows, WIDTH invocations to a row: their factors (backward_factors_*.wgsl), and their sums in
// matrices. A step: items to workgroup memory, and the next ones fetched; barrier; both products there, for only there is it known which
// number stands where; barrier; pairs, and weights in f16; barrier; sums. What an invocation has of any matrix lies together if items lie
// side by side by dim (of a product's factor), and turned by item (of the terms): both ways, where there is room (TURNED).
// f16 has 30 binades, gradients are of any size. dout counts in units of its row (backward_units.wgsl). A row of weights has a unit too, a
// power of two by which it is exact to multiply and divide: no weight is above its bound, what it would be were p 1, and the unit follows
// the largest bound of the row so far, when that has grown by 2^6 or more: seldom, as sums then pass through workgroup memory. Weights
// down to 2^-22 of that are rounded as f16 rounds; p above 1, of an lse of other scores, is cut off where f16 ends. The kernel says what
// factors are: `row_chunk(second, c)` is four dims of this invocation's row, `item_chunk(second, j, c)` of an item, `item_scales(j)` what
// those of `second` are times.
// Workgroup memory: 2 * KEYS * (FIRST_STRIDE + SECOND_STRIDE) + 2 * TURNED_STRIDE * (FIRST_TURNED + SECOND_TURNED)
// + ROWS * (4 * PRODUCTS * NUMBER_STRIDE + 2 * WEIGHTS * WEIGHT_STRIDE) + 16 bytes.
const NONE: u32 = 0xffffffffu;
const WORKGROUP: u32 = SUBGROUP * SUBGROUPS;
const ROWS: u32 = OWN_ROWS * SUBGROUPS;
const WIDTH: u32 = SUBGROUP / OWN_ROWS; // invocations that share a row
const OWN_KEYS: u32 = KEYS / WIDTH; // items of an invocation in a step, side by side
const OWN_CHUNKS: u32 = OWN_KEYS / 4u;
const ROW_MATRICES: u32 = OWN_ROWS / SIZE;
const KEY_MATRICES: u32 = KEYS / SIZE;
const FIRST_MATRICES: u32 = (4u * HEAD_CHUNKS + SIZE - 1u) / SIZE;
const SECOND_MATRICES: u32 = (4u * OUT_CHUNKS + SIZE - 1u) / SIZE;
const FIRST_EIGHTS: u32 = FIRST_MATRICES * SIZE / 8u; // with those that are 0
const SECOND_EIGHTS: u32 = SECOND_MATRICES * SIZE / 8u;
const FIRST_TURNED: u32 = select(1u, 8u * FIRST_EIGHTS, TURNED && FIRST_SUMS); // dims
const SECOND_TURNED: u32 = select(1u, 8u * SECOND_EIGHTS, TURNED && SECOND_SUMS);
// An invocation brings four dims of four items at once, so many times: neighbours SIZE dims side by side, of as many items as there are.
const NEAR: u32 = SIZE / 4u * KEYS / 4u;
const FIRST_BLOCKS: u32 = KEYS / 4u * 2u * FIRST_EIGHTS;
const SECOND_BLOCKS: u32 = KEYS / 4u * 2u * SECOND_EIGHTS;
const FIRST_PARTS: u32 = (FIRST_BLOCKS + WORKGROUP - 1u) / WORKGROUP;
const SECOND_PARTS: u32 = (SECOND_BLOCKS + WORKGROUP - 1u) / WORKGROUP;
// Rows are 8 halves longer than they need be, to lie in different banks.
const FIRST_STRIDE: u32 = 8u * FIRST_EIGHTS + 8u;
const SECOND_STRIDE: u32 = 8u * SECOND_EIGHTS + 8u;
const NUMBER_STRIDE: u32 = KEYS + 4u;
const WEIGHT_STRIDE: u32 = KEYS + 8u;
const TURNED_STRIDE: u32 = KEYS + 8u;
const PRODUCTS: u32 = select(1u, 2u, DP);
const WEIGHTS: u32 = select(1u, 2u, FIRST_SUMS && SECOND_SUMS);
const_assert SUBGROUP % OWN_ROWS == 0u && OWN_ROWS % SIZE == 0u && KEYS % SIZE == 0u && KEYS % (4u * WIDTH) == 0u;

// A row of numbers, and one of weights, by whose they are.
struct NumberRow {
    owner: array<array<array<f32, 4>, OWN_CHUNKS>, WIDTH>, // [x, chunk, item]; or KEYS dims of sums
    apart: array<f32, 4>,
}

struct WeightRow {
    owner: array<array<array<f16, 4>, OWN_CHUNKS>, WIDTH>, // [x, chunk, item]; or KEYS dims of factors
    apart: array<f16, 8>,
}

var<workgroup> numbers: array<array<array<NumberRow, OWN_ROWS>, SUBGROUPS>, PRODUCTS>; // x, dp
var<workgroup> weights: array<array<array<WeightRow, OWN_ROWS>, SUBGROUPS>, WEIGHTS>; // of the first sums, of the second
var<workgroup> first_items: array<array<array<f16, 4>, FIRST_STRIDE / 4u>, KEYS>; // [item, dim]
var<workgroup> second_items: array<array<array<f16, 4>, SECOND_STRIDE / 4u>, KEYS>;
var<workgroup> first_turned: array<array<array<f16, 4>, TURNED_STRIDE / 4u>, FIRST_TURNED>; // [dim, item]
var<workgroup> second_turned: array<array<array<f16, 4>, TURNED_STRIDE / 4u>, SECOND_TURNED>;
// The last step in which the unit of some row grew, of both sums. An array, as its neighbours are best aligned to 16 bytes.
var<workgroup> grown: array<atomic<u32>, 4>;

var<private> invocation: u32;
var<private> own: u32; // subgroup
var<private> row: u32; // of the subgroup's
var<private> x: u32; // along WIDTH
var<private> steps: u32; // taken
var<private> ahead: u32; // the first of the items that were fetched for the next step
var<private> next_first: array<array<vec4<f32>, 4>, FIRST_PARTS>;
var<private> next_second: array<array<vec4<f32>, 4>, SECOND_PARTS>;
var<private> next_scales: array<vec4<f32>, SECOND_PARTS>;
var<private> units: array<f32, 2>; // of the row's weights and sums; 0 before there are any
var<private> first_sums: array<array<Sums, FIRST_MATRICES>, ROW_MATRICES>;
var<private> second_sums: array<array<Sums, SECOND_MATRICES>, ROW_MATRICES>;

fn take_place(local: u32, subgroup: u32, lane: u32) {
    invocation = local;
    own = subgroup;
    row = lane / WIDTH;
    x = lane % WIDTH;
}

// A word of workgroup memory for what the invocations ask of each other before the first step.
fn first_word() -> f32 {
    return workgroupUniformLoad(&numbers[0][0][0].owner[0][0][0]);
}

fn put_first_word(word: f32) {
    numbers[0][0][0].owner[0][0][0] = word;
}

// Before the first step.
fn start_sums() {
    steps = 0u;
    ahead = NONE;
    units[0] = 0.0;
    units[1] = 0.0;
    if (invocation == 0u) {
        atomicStore(&grown[0], 0u);
        atomicStore(&grown[1], 0u);
    }
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var c = 0u; c < FIRST_MATRICES; c++) { // unroll
            first_sums[m][c] = Sums();
        }
        for (var c = 0u; c < SECOND_MATRICES; c++) { // unroll
            second_sums[m][c] = Sums();
        }
    }
    bring_rows();
}

// Four dims of a row's factors; those past its end are 0.
fn row_halves(second: bool, c: u32) -> vec4<f16> {
    if (c < select(HEAD_CHUNKS, OUT_CHUNKS, second)) {
        return to_f16(row_chunk(second, c));
    }
    return vec4<f16>();
}

// What an invocation brings: a chunk (x) of four items (y).
fn place(part: u32) -> vec2<u32> {
    let i = part * WORKGROUP + invocation;
    return vec2(i / NEAR * (SIZE / 4u) + i % (SIZE / 4u), i / (SIZE / 4u) % (KEYS / 4u));
}

// Of items from j on, none past `last`: that takes the place of those behind it, as nothing weighs them.
fn fetch_items(second: bool, part: u32, j: u32, last: u32) -> array<vec4<f32>, 4> {
    let own_place = place(part);
    var items: array<vec4<f32>, 4>;
    if (own_place.x < select(HEAD_CHUNKS, OUT_CHUNKS, second)) {
        for (var i = 0u; i < 4u; i++) { // unroll
            items[i] = item_chunk(second, min(j + 4u * own_place.y + i, last), own_place.x);
        }
    }
    return items;
}

// To f16, times a scale of each. What a row does not see may be NaN, and 0 times that would leak: where there is an edge, NaN counts as 0.
fn halves_of(items: array<vec4<f32>, 4>, scales: vec4<f32>, edge: bool) -> array<vec4<f16>, 4> {
    var found: array<vec4<f16>, 4>;
    for (var i = 0u; i < 4u; i++) { // unroll
        var four = items[i];
        if (edge) {
            let bits = bitcast<vec4<u32>>(four) & vec4(0x7fffffffu);
            four = select(four, vec4(0.0), bits > vec4(0x7f800000u));
        }
        found[i] = to_f16(scales[i] * four);
    }
    return found;
}

fn put_first(part: u32, items: array<vec4<f32>, 4>, edge: bool) {
    if (FIRST_BLOCKS % WORKGROUP == 0u || part * WORKGROUP + invocation < FIRST_BLOCKS) {
        let own_place = place(part);
        let own_halves = halves_of(items, vec4(1.0), edge);
        for (var i = 0u; i < 4u; i++) { // unroll
            for (var d = 0u; d < 4u; d++) { // unroll
                first_items[4u * own_place.y + i][own_place.x][d] = own_halves[i][d];
            }
        }
        if (TURNED && FIRST_SUMS) {
            for (var d = 0u; d < 4u; d++) { // unroll
                for (var i = 0u; i < 4u; i++) { // unroll
                    first_turned[4u * own_place.x + d][own_place.y][i] = own_halves[i][d];
                }
            }
        }
    }
}

fn put_second(part: u32, items: array<vec4<f32>, 4>, scales: vec4<f32>, edge: bool) {
    if (SECOND_BLOCKS % WORKGROUP == 0u || part * WORKGROUP + invocation < SECOND_BLOCKS) {
        let own_place = place(part);
        let own_halves = halves_of(items, scales, edge);
        if (DP || !TURNED) {
            for (var i = 0u; i < 4u; i++) { // unroll
                for (var d = 0u; d < 4u; d++) { // unroll
                    second_items[4u * own_place.y + i][own_place.x][d] = own_halves[i][d];
                }
            }
        }
        if (TURNED && SECOND_SUMS) {
            for (var d = 0u; d < 4u; d++) { // unroll
                for (var i = 0u; i < 4u; i++) { // unroll
                    second_turned[4u * own_place.x + d][own_place.y][i] = own_halves[i][d];
                }
            }
        }
    }
}

// A step begins, once all have done with the last one's items.
fn start_step() {
    steps++;
    workgroupBarrier();
}

// The step's items from j on to workgroup memory, and the next ones on their way.
fn bring_items(j: u32, last: u32, edge: bool) {
    if (!AHEAD || ahead != j) {
        for (var part = 0u; part < FIRST_PARTS; part++) { // unroll if AHEAD
            let items = fetch_items(false, part, j, last);
            if (AHEAD) {
                next_first[part] = items;
            } else {
                put_first(part, items, edge);
            }
        }
        if (DP || SECOND_SUMS) {
            for (var part = 0u; part < SECOND_PARTS; part++) { // unroll if AHEAD
                let items = fetch_items(true, part, j, last);
                let scales = item_scales(min(vec4(j + 4u * place(part).y) + vec4(0u, 1u, 2u, 3u), vec4(last)));
                if (AHEAD) {
                    next_second[part] = items;
                    next_scales[part] = scales;
                } else {
                    put_second(part, items, scales, edge);
                }
            }
        }
    }
    if (AHEAD) {
        for (var part = 0u; part < FIRST_PARTS; part++) { // unroll if AHEAD
            put_first(part, next_first[part], edge);
        }
        if (DP || SECOND_SUMS) {
            for (var part = 0u; part < SECOND_PARTS; part++) { // unroll if AHEAD
                put_second(part, next_second[part], next_scales[part], edge);
            }
        }
        ahead = j + KEYS;
        for (var part = 0u; part < FIRST_PARTS; part++) { // unroll if AHEAD
            next_first[part] = fetch_items(false, part, ahead, last);
        }
        if (DP || SECOND_SUMS) {
            for (var part = 0u; part < SECOND_PARTS; part++) { // unroll if AHEAD
                next_second[part] = fetch_items(true, part, ahead, last);
                next_scales[part] = item_scales(min(vec4(ahead + 4u * place(part).y) + vec4(0u, 1u, 2u, 3u), vec4(last)));
            }
        }
    }
    workgroupBarrier();
}

// Both products of the step's pairs, to workgroup memory.
fn multiply_pairs() {
    var pairs: array<array<Sums, KEY_MATRICES>, ROW_MATRICES>;
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            pairs[m][n] = Sums();
        }
    }
    for (var d = 0u; d < FIRST_MATRICES; d++) { // unroll if HELD
        var left: array<Left, ROW_MATRICES>;
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            left[m] = first_rows(m, d);
        }
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            // An item is a column.
            let items = coopLoad<Right>(&first_items[n * SIZE][d * SIZE / 4u][0], FIRST_STRIDE);
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                pairs[m][n] = coopMultiplyAdd(left[m], items, pairs[m][n]);
            }
        }
    }
    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
        for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
            store_numbers(0u, m, n, pairs[m][n]);
            pairs[m][n] = Sums();
        }
    }
    if (DP) {
        for (var d = 0u; d < SECOND_MATRICES; d++) { // unroll if HELD
            var left: array<Left, ROW_MATRICES>;
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                left[m] = second_rows(m, d);
            }
            for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
                let items = coopLoad<Right>(&second_items[n * SIZE][d * SIZE / 4u][0], SECOND_STRIDE);
                for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                    pairs[m][n] = coopMultiplyAdd(left[m], items, pairs[m][n]);
                }
            }
        }
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            for (var n = 0u; n < KEY_MATRICES; n++) { // unroll
                store_numbers(PRODUCTS - 1u, m, n, pairs[m][n]);
            }
        }
    }
    workgroupBarrier();
}

// Of this invocation's fours of items in a step, i: the first's place among them, and their numbers.
fn own_item(i: u32) -> u32 {
    return x * OWN_KEYS + 4u * i;
}

fn numbers_of(product: u32, i: u32) -> vec4<f32> {
    var four: vec4<f32>;
    for (var d = 0u; d < 4u; d++) { // unroll
        four[d] = numbers[product][own][row].owner[x][i][d];
    }
    return four;
}

fn dp_of(i: u32) -> vec4<f32> {
    if (DP) {
        return numbers_of(PRODUCTS - 1u, i);
    }
    return vec4(0.0);
}

// One over a power of two, not 0. Of 0, some number.
fn inverse(power: f32) -> f32 {
    return bitcast<f32>(0x7f000000u - bitcast<u32>(power));
}

// The unit of a row's weights and of its sums s, where none of a step's weights is above `bounds`; by how much the sums shrink.
fn follow_bounds(s: u32, bounds: vec4<f32>) -> f32 {
    var most = max(max(bounds.x, bounds.y), max(bounds.z, bounds.w));
    for (var distance = 1u; distance < WIDTH; distance *= 2u) {
        most = max(most, subgroupShuffleXor(most, distance));
    }
    let before = units[s];
    if (most > 32768.0 * before) {
        units[s] = bitcast<f32>((clamp(bitcast<u32>(most) >> 23u, 9u, 254u) - 8u) << 23u);
        if (before > 0.0) {
            atomicStore(&grown[s], steps);
        }
    }
    return before * inverse(units[s]);
}

fn put_weights(s: u32, i: u32, four: vec4<f32>) {
    put_four(select(0u, WEIGHTS - 1u, s == 1u), i, to_f16(four * inverse(units[s])));
}

fn put_four(w: u32, i: u32, four: vec4<f16>) {
    for (var d = 0u; d < 4u; d++) { // unroll
        weights[w][own][row].owner[x][i][d] = four[d];
    }
}

// Once all weights of a step are there: sums = shrink * sums + weights terms.
fn add_first_terms(shrink: f32) {
    if (subgroupBroadcastFirst(atomicLoad(&grown[0])) == steps) {
        rescale(false, shrink);
    }
    for (var n = 0u; n < KEY_MATRICES; n++) { // unroll if UNROLL_TERMS
        var left: array<Left, ROW_MATRICES>;
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            left[m] = load_weights(0u, m, n);
        }
        for (var c = 0u; c < FIRST_MATRICES; c++) { // unroll
            let terms = first_terms(n, c);
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                first_sums[m][c] = coopMultiplyAdd(left[m], terms, first_sums[m][c]);
            }
        }
    }
}

fn add_second_terms(shrink: f32) {
    if (subgroupBroadcastFirst(atomicLoad(&grown[1])) == steps) {
        rescale(true, shrink);
    }
    for (var n = 0u; n < KEY_MATRICES; n++) { // unroll if UNROLL_TERMS
        var left: array<Left, ROW_MATRICES>;
        for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
            left[m] = load_weights(WEIGHTS - 1u, m, n);
        }
        for (var c = 0u; c < SECOND_MATRICES; c++) { // unroll
            let terms = second_terms(n, c);
            for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                second_sums[m][c] = coopMultiplyAdd(left[m], terms, second_sums[m][c]);
            }
        }
    }
}

// Matrix n down and c across of the terms: a dim is a column.
fn first_terms(n: u32, c: u32) -> Right {
    if (TURNED) {
        return coopLoad<Right>(&first_turned[c * SIZE % FIRST_TURNED][n * SIZE / 4u][0], TURNED_STRIDE);
    }
    return coopLoadT<Right>(&first_items[n * SIZE][c * SIZE / 4u][0], FIRST_STRIDE);
}

fn second_terms(n: u32, c: u32) -> Right {
    if (TURNED) {
        return coopLoad<Right>(&second_turned[c * SIZE % SECOND_TURNED][n * SIZE / 4u][0], TURNED_STRIDE);
    }
    return coopLoadT<Right>(&second_items[n * SIZE][c * SIZE / 4u][0], SECOND_STRIDE);
}

// Matrix m down and n across of the subgroup's weights, and of its numbers.
fn load_weights(w: u32, m: u32, n: u32) -> Left {
    return coopLoadT<Left>(&weights[w][own][m * SIZE].owner[n * SIZE / OWN_KEYS][n * SIZE % OWN_KEYS / 4u][0], WEIGHT_STRIDE);
}

fn load_numbers(m: u32, n: u32) -> Sums {
    return coopLoadT<Sums>(&numbers[0][own][m * SIZE].owner[n * SIZE / OWN_KEYS][n * SIZE % OWN_KEYS / 4u][0], NUMBER_STRIDE);
}

fn store_numbers(product: u32, m: u32, n: u32, own_numbers: Sums) {
    coopStoreT(
        own_numbers,
        &numbers[product][own][m * SIZE].owner[n * SIZE / OWN_KEYS][n * SIZE % OWN_KEYS / 4u][0],
        NUMBER_STRIDE,
    );
}

// KEYS dims of the subgroup's sums to where the first product was, once all have done with what is there: this invocation's are
// `numbers_of(0u, i)`, chunks from `sum_chunk` on.
fn put_sums(second: bool, panel: u32) {
    workgroupBarrier();
    if (second) {
        for (var c = 0u; c < SECOND_MATRICES; c++) { // unroll
            if (c / KEY_MATRICES == panel) {
                for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                    store_numbers(0u, m, c % KEY_MATRICES, second_sums[m][c]);
                }
            }
        }
    } else {
        for (var c = 0u; c < FIRST_MATRICES; c++) { // unroll
            if (c / KEY_MATRICES == panel) {
                for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                    store_numbers(0u, m, c % KEY_MATRICES, first_sums[m][c]);
                }
            }
        }
    }
    workgroupBarrier();
}

fn panels(second: bool) -> u32 {
    return (select(FIRST_MATRICES, SECOND_MATRICES, second) + KEY_MATRICES - 1u) / KEY_MATRICES;
}

fn sum_chunk(panel: u32) -> u32 {
    return panel * KEYS / 4u + x * OWN_CHUNKS;
}

fn rescale(second: bool, shrink: f32) {
    for (var panel = 0u; panel < panels(second); panel++) {
        put_sums(second, panel);
        for (var i = 0u; i < OWN_CHUNKS; i++) { // unroll if UNROLL
            for (var d = 0u; d < 4u; d++) { // unroll
                numbers[0][own][row].owner[x][i][d] *= shrink;
            }
        }
        workgroupBarrier();
        if (second) {
            for (var c = 0u; c < SECOND_MATRICES; c++) { // unroll
                if (c / KEY_MATRICES == panel) {
                    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                        second_sums[m][c] = load_numbers(m, c % KEY_MATRICES);
                    }
                }
            }
        } else {
            for (var c = 0u; c < FIRST_MATRICES; c++) { // unroll
                if (c / KEY_MATRICES == panel) {
                    for (var m = 0u; m < ROW_MATRICES; m++) { // unroll
                        first_sums[m][c] = load_numbers(m, c % KEY_MATRICES);
                    }
                }
            }
        }
    }
}
