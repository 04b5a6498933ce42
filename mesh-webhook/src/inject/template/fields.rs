//! In Go a template reads exported fields and calls methods of structs: `.Spec.Containers`, `.ProxyConfig.GetTracing`.
//! Our data is JSON: `.spec.containers`, `.proxyConfig.tracing`. So the paths of a parsed template are renamed once, which
//! also makes `toYaml .Spec` say what it says in Go, where fields have the names of JSON tags.

use gotmpl::Template;
use gotmpl::parse::{Expr, ListNode, Node, PipeNode, SmolStr};

/// Methods that only unwrap what JSON doesn't wrap.
const UNWRAPPING: [&str; 3] = ["GetValue", "String", "AsDuration"];

/// The template with all its paths as JSON has them.
pub(super) fn as_in_json(template: Template) -> Template {
    let names: Vec<String> = template.templates().into_iter().map(str::to_owned).collect();
    names.iter().fold(template, |template, name| {
        let Some(mut tree) = template.lookup(name).cloned() else { return template };
        in_list(&mut tree);
        template.add_parse_tree(name, tree)
    })
}

fn in_list(list: &mut ListNode) {
    list.nodes.iter_mut().for_each(in_node);
}

fn in_node(node: &mut Node) {
    match node {
        Node::List(list) => in_list(list),
        Node::Action(action) => in_pipe(&mut action.pipe),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
            in_pipe(&mut branch.pipe);
            in_list(&mut branch.body);
            branch.else_body.iter_mut().for_each(in_list);
        }
        Node::Template(call) => call.pipe.iter_mut().for_each(in_pipe),
        Node::Define(define) => in_list(&mut define.body),
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => {}
    }
}

fn in_pipe(pipe: &mut PipeNode) {
    pipe.commands.iter_mut().flat_map(|command| &mut command.args).for_each(in_expr);
}

fn in_expr(expr: &mut Expr) {
    match expr {
        Expr::Field(pos, path) => {
            rename(path);
            if path.is_empty() {
                *expr = Expr::Dot(*pos);
            }
        }
        Expr::Variable(_, _, path) => rename(path),
        Expr::Chain(_, inner, path) => {
            in_expr(inner);
            rename(path);
        }
        Expr::Pipe(_, pipe) => in_pipe(pipe),
        _ => {}
    }
}

fn rename(path: &mut Vec<SmolStr>) {
    // Values are the user's own maps; their keys stay.
    let own = if path.first().is_some_and(|first| first == "Values") { 1 } else { path.len() };
    path.retain(|field| !UNWRAPPING.contains(&field.as_str()));
    for field in path.iter_mut().take(own) {
        *field = json_name(field);
    }
}

/// `HTTPGet` is `httpGet`, `GetTracing` is `tracing`, `UID` is `uid`; what is no exported field of Go stays.
fn json_name(field: &SmolStr) -> SmolStr {
    let getter = field.strip_prefix("Get").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    let name = getter.unwrap_or(field);
    let upper = name.bytes().take_while(u8::is_ascii_uppercase).count();
    if upper == 0 || name.contains('_') {
        return field.clone();
    }
    // Of an acronym before another word, the last capital begins that word.
    let lower = if upper > 1 && upper < name.len() { upper - 1 } else { upper };
    let (head, tail) = name.split_at(lower);
    SmolStr::from(head.to_ascii_lowercase() + tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_names_of_json() {
        for (go, json) in [
            ("Spec", "spec"),
            ("ServiceAccountName", "serviceAccountName"),
            ("HTTPGet", "httpGet"),
            ("DNSPolicy", "dnsPolicy"),
            ("APIVersion", "apiVersion"),
            ("UID", "uid"),
            ("ProxyUID", "proxyUID"),
            ("GetTracing", "tracing"),
            ("Get", "get"),
            ("ENABLE_X", "ENABLE_X"),
            ("app", "app"),
        ] {
            assert_eq!(json_name(&SmolStr::from(go)), json);
        }
    }

    #[test]
    fn paths_of_templates() {
        let text = "{{ .Spec.X }}{{ with .ProxyConfig }}{{ .InterceptionMode.String }}{{ end }}{{ .Values.A.B }}\
                    {{ $c := .Spec }}{{ define \"d\" }}{{ .GetY.GetValue }}{{ end }}{{ template \"d\" . }}{{ ($c).X }}";
        let template = as_in_json(Template::new("t").parse(text).unwrap());
        let data = gotmpl::tmap! {
            "spec" => gotmpl::tmap! { "x" => 1i64 },
            "proxyConfig" => gotmpl::tmap! { "interceptionMode" => "M" },
            "values" => gotmpl::tmap! { "A" => gotmpl::tmap! { "B" => 2i64 } },
            "y" => 3i64,
        };
        let mut out = String::new();
        template.execute_template_fmt(&mut out, "t", &data).unwrap();
        assert_eq!(out, "1M231");
    }
}
