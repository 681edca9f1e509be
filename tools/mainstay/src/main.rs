mod sqlite;

fn main() {}
