function rows = load(path)
% Rows of comma-separated numbers; an empty file gives no rows, where the built-in load fails.
text = fileread(path);
if isempty(strtrim(text))
    rows = zeros(0, 8);
else
    rows = reshape(sscanf(strrep(text, ',', ' '), '%f'), 8, [])';
end
end
