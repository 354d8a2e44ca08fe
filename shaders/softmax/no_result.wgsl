// Of a dispatch that only finds statistics: nothing follows from them here.
fn start_row(own: Statistics) {
}

fn write() {
}

fn finish_row() {
}
