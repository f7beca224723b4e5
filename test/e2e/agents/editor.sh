# An editor that shows what it is given, and changes the key `colour`, wherever it stands: EDITOR='sh editor.sh'.
cat "$1" >&2
sed -i -e 's/^\( *colour: \).*$/\1cmVk/' "$1"
