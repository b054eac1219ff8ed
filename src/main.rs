//! The `bellhop` command.

fn main() {
    for crd in bellhop::api::all_crds() {
        print!("---\n{}", bellhop::api::to_yaml(&crd).unwrap());
    }
}
