export HOME=/tmp/seeing2/.looks/home XDG_CONFIG_HOME=$HOME/.config XDG_STATE_HOME=$HOME/.state XDG_CACHE_HOME=$HOME/.cache PATH=/tmp/seeing2/.venv/bin:$PATH
unset CI
