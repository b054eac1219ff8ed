//! The `bellhop` command: prints the CustomResourceDefinitions.

fn main() -> anyhow::Result<()> {
    for crd in bellhop::api::all_crds() {
        print!("---\n{}", bellhop::api::to_yaml(&crd)?);
    }
    Ok(())
}
