// What an online softmax knows of the logits of a row that it has met, the target's not among them; in the workspace.
struct State {
    largest: f32,
    sum: f32, // of exp(logit - largest)
    weighted: f32, // the same, each times logit - largest
    below: f32, // the sum of largest - logit
    count: f32,
    broken: u32, // 1 where a logit, the target's too, is NaN or infinite
    best: f32, // the largest of all logits without a margin
    best_class: u32, // its class, of equals the first
}

const LOWEST: f32 = -1.0e38; // no logit is below; the difference of two such is finite
const NOTHING: State = State(LOWEST, 0.0, 0.0, 0.0, 0.0, 0u, -3.4028234e38, 0xffffffffu);

@group(0) @binding(2) var<storage, read_write> states: array<State>; // [splits, rows]

// The state relative to a larger logit.
fn rebased(from_own: State, largest: f32) -> State {
    var own = from_own;
    let down = own.largest - largest;
    let factor = exp(down);
    own.largest = largest;
    own.sum *= factor;
    own.weighted = factor * own.weighted + down * own.sum;
    own.below -= own.count * down;
    return own;
}

fn both(a: State, b: State) -> State {
    let largest = max(a.largest, b.largest);
    var all = rebased(a, largest);
    let other = rebased(b, largest);
    all.sum += other.sum;
    all.weighted += other.weighted;
    all.below += other.below;
    all.count += other.count;
    all.broken |= other.broken;
    return better(all, b.best, b.best_class);
}

// The state, where the logit of a class has been met.
fn better(from_own: State, logit: f32, number: u32) -> State {
    var own = from_own;
    if (logit > own.best || (logit == own.best && number < own.best_class)) {
        own.best = logit;
        own.best_class = number;
    }
    return own;
}
