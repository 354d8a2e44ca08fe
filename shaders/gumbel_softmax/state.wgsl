// What is known of some columns of a row, found by a walk, and merged over the invocations of a row in a fixed order.
const LOWEST: f32 = -0x1.fffffep+127; // no score is below the lowest float
const NONE: u32 = 0xffffffffu;
const NAN: u32 = 0x7fc00000u;
const DEEPEST: f32 = 104.0; // exp(-104) is 0 in f32

struct State {
    largest: f32, // score, which is logit + noise
    best: u32, // the lowest column that has it; NONE where no class takes part
    sums: Sums, // over the weights exp((score - largest) / tau)
    bad: u32, // NAN where tau or a logit is no number to compute with, else 0
}

var<workgroup> shared_largest: array<f32, WORKGROUP>;
var<workgroup> shared_best: array<u32, WORKGROUP>;
var<workgroup> shared_sums: array<Sums, WORKGROUP>;
var<workgroup> shared_bad: array<u32, WORKGROUP>;

fn empty(row: Row) -> State {
    return State(LOWEST, NONE, no_sums(), row.bad);
}

// Bounded before the division, so that no tau makes an infinity.
fn weight(below: f32, tau: f32) -> f32 {
    return exp(-min(below, DEEPEST * tau) / tau);
}

fn weight4(below: vec4<f32>, tau: f32) -> vec4<f32> {
    return exp(-min(below, vec4(DEEPEST * tau)) / tau);
}

// The larger score wins, of equal ones the lower column.
fn merged(a: State, b: State, tau: f32) -> State {
    var high = a;
    var low = b;
    let larger = b.largest > a.largest || (b.largest == a.largest && b.best < a.best);
    if (b.best != NONE && (a.best == NONE || larger)) {
        high = b;
        low = a;
    }
    if (low.best != NONE) {
        let step = min(high.largest - low.largest, DEEPEST * tau); // beyond, no weight is left
        high.sums = added(high.sums, lowered(low.sums, step, weight(step, tau)));
    }
    high.bad |= low.bad;
    return high;
}

// The state of a row, for each of its LANES invocations, which follow each other.
fn reduce(own: State, tau: f32, invocation: u32) -> State {
    var state = own;
    store_shared(invocation, state);
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (invocation % LANES < half) {
            state = merged(state, load_shared(invocation + half), tau);
            store_shared(invocation, state);
        }
    }
    workgroupBarrier();
    return load_shared(invocation / LANES * LANES);
}

fn store_shared(at: u32, state: State) {
    shared_largest[at] = state.largest;
    shared_best[at] = state.best;
    shared_sums[at] = state.sums;
    shared_bad[at] = state.bad;
}

fn load_shared(at: u32) -> State {
    return State(shared_largest[at], shared_best[at], shared_sums[at], shared_bad[at]);
}
