//! A map over all cores, for the twins.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `f` of every item, in order, on at most so many threads.
pub fn map<T: Sync, R: Send>(items: &[T], at_most: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len()).min(at_most).max(1);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Vec::new();
                while let Some((index, item)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).map(|item| (index, item))
                } {
                    own.push((index, f(item)));
                }
                found.lock().expect("no thread panics while it holds the lock").extend(own);
            });
        }
    });
    let mut found = found.into_inner().expect("a thread that panicked has ended the scope");
    found.sort_by_key(|&(index, _)| index);
    found.into_iter().map(|(_, value)| value).collect()
}
